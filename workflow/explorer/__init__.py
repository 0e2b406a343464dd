"""One HTML file in which people look at an atlas: cells, cluster trees, what lies behind them."""
