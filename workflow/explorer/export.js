// The exported picture: plots and legend on one canvas.

const LEGEND_COLUMN = 190; // CSS pixels
const LEGEND_ROW = 18;

/** Draw the plots and the legend on a canvas, with twice the pixels of the screen. */
function drawPicture(atlas, column, plots, area) {
  const ratio = 2 * (window.devicePixelRatio || 1);
  const { left, top, width, height } = area.getBoundingClientRect();
  const rows = Math.max(1, Math.floor((height - 60) / LEGEND_ROW));
  const legendColumns = column.names ? Math.min(Math.ceil(column.names.length / rows), 3) : 1;
  const fullWidth = width + LEGEND_COLUMN * legendColumns;
  const canvas = make('canvas', { width: fullWidth * ratio, height: height * ratio });
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (const plot of plots) {
    const box = plot.box.getBoundingClientRect();
    plot.copyTo(context, (box.left - left) * ratio, (box.top - top) * ratio, ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = TEXT_COLOR;
    context.font = '600 14px system-ui, sans-serif';
    context.fillText(`${atlas.title} · ${plot.method.name}`, box.left - left + 8, 22);
    context.setTransform(1, 0, 0, 1, 0, 0);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.translate(width + 10, 30);
  drawPictureLegend(context, atlas, column, rows, rows * legendColumns);
  return canvas;
}

/** Draw the legend: categories in columns, or the color scale. */
function drawPictureLegend(context, atlas, column, rows, limit) {
  context.font = '600 12px system-ui, sans-serif';
  context.fillStyle = TEXT_COLOR;
  context.fillText(column.name, 0, -8, 180);
  context.font = '12px system-ui, sans-serif';
  if (!column.names) {
    for (let i = 0; i < 160; i++) {
      context.fillStyle = css(atlas.scale[Math.round((i / 159) * 255)]);
      context.fillRect(i, 8, 1.5, 12);
    }
    context.fillStyle = TEXT_COLOR;
    context.fillText(formatNumber(column.ends[0]), 0, 36);
    context.textAlign = 'right';
    context.fillText(formatNumber(column.ends[1]), 160, 36);
    return;
  }
  column.names.slice(0, limit).forEach((name, category) => {
    const x = LEGEND_COLUMN * Math.floor(category / rows);
    const y = 14 + LEGEND_ROW * (category % rows);
    context.fillStyle = css(categoryColor(atlas, category));
    context.beginPath();
    context.arc(x + 5, y - 4, 5, 0, 2 * Math.PI);
    context.fill();
    context.fillStyle = TEXT_COLOR;
    const last = category === limit - 1 && column.names.length > limit;
    context.fillText(last ? `and ${column.names.length - category} more` : name, x + 16, y, 160);
  });
}

/** Offer a canvas as a PNG file to save. */
function downloadPicture(canvas, file) {
  canvas.toBlob((blob) => {
    const url = URL.createObjectURL(blob);
    make('a', { href: url, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    $('status').textContent = `Saved ${file}`;
  });
}
