"""Weak-to-strong alignment, from raw preferences to figures. `make help` lists the commands, README.md tells the story."""

from snakemake.utils import min_version

min_version("9.25")


configfile: f"{workflow.basedir}/config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/teacher.smk"
include: "rules/labels.smk"
include: "rules/student.smk"
include: "rules/evaluate.smk"
include: "rules/figures.smk"


report: "report/workflow.rst"


onstart:
    refuse_impossible_start(workflow)


rule all:
    default_target: True
    input:
        rules.report.output,
        PLAN.figures("pdf", "png", "csv"),


rule tables:
    input:
        PLAN.tables(),


rule splits:
    input:
        [PLAN.manifest("splits", cell_path(cell)) for name in CONFIG.run for cell in PLAN.cells(name)],


# All that the targets need from outside, verified. After it no job needs a network.
rule prefetch:
    input:
        [PLAN.source(name) for name in PLAN.needed_sources()],
