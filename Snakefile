"""cellstrata: integrate single-cell data sets and cluster them at many resolutions and levels."""

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

# Of this file, also where it is a module of another workflow; resolved, so that results stay valid
# however the way here is spelled.
BASE = Path(str(workflow.current_basedir)).resolve()
sys.path.insert(0, str(BASE / "workflow"))

from plan.failures import tell_failures
from plan.launch import banner, check_report, leave_at_once, read_config, summary, use_own_python
from plan.plan import make_plan
from utils import resources
from utils.paths import changed_at

use_own_python()


# The demo runs only where no data sets are given: configs are merged, so it would run beside them.
if "DATASETS" not in config:

    configfile: BASE / "config/config.yaml"


# With --sdm conda every rule brings its packages.
own_packages = "conda" not in map(str, workflow.deployment_settings.deployment_method)
plan = make_plan(
    read_config(
        config,
        workflow.configfiles,
        own_packages=own_packages,
        check_inputs=workflow.is_main_process,
    ),
    workflow=str(BASE / "workflow"),
)
if workflow.is_main_process:
    banner(plan, workflow.configfiles)
    check_report(plan)


report: "workflow/evaluation/report/workflow.rst"


include: "workflow/preprocessing/rules.smk"
include: "workflow/integration/rules.smk"
include: "workflow/clustering/rules.smk"
include: "workflow/evaluation/rules.smk"
include: "workflow/explorer/rules.smk"


rule all:
    default_target: True
    input:
        plan.targets("atlas"),
        # Named here, so that one that is gone is made again: an atlas is nothing without them.
        plan.linked_stores(),
        plan.exports(),
        plan.targets("plots"),
        plan.structures(),
        plan.evaluations(),
        plan.comparisons(),
        plan.explorers(),
        plan.pattern("summary"),


onsuccess:
    summary(plan.pattern("summary"))
    leave_at_once()


onerror:
    tell_failures(log, logs=plan.log(""))
