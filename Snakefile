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
include: "rules/judge.smk"
include: "rules/refine.smk"
include: "rules/theory.smk"
include: "rules/figures.smk"
include: "rules/scorecard.smk"
include: "rules/provenance.smk"


report: "report/workflow.rst"


onstart:
    refuse_impossible_start(workflow)


rule all:
    default_target: True
    input:
        rules.report.output,
        # Asked for by name: what nobody asks for is not missed after a forced run that was killed.
        PLAN.tables(),
        PLAN.figures(),
        PLAN.scorecards(),
        rules.write_model_cards.output,
        rules.export_crate.output,


# One target per experiment, by its name: its tables and its figure.
for name in CONFIG.run:

    rule:
        name:
            name
        input:
            PLAN.item(name),


# All that paper A prints, of what this preset runs; and its figures alone.
rule paper_a:
    input:
        [path for name in PLAN.paper_items("a") for path in PLAN.item(name)],


rule figures_a:
    input:
        [path for name in PLAN.paper_items("a") if "_figure_" in name for path in PLAN.figure_files(name)],


# All of paper B.
rule paper_b:
    input:
        [path for name in PLAN.paper_items("b") for path in PLAN.item(name)],


rule tables:
    input:
        PLAN.tables(),


rule splits:
    input:
        [PLAN.manifest("splits", cell_path(cell)) for name in PLAN.experiments for cell in PLAN.cells(name)],


# All that the targets need from outside, verified. After it no job needs a network.
rule prefetch:
    input:
        [PLAN.source(name) for name in PLAN.needed_sources()],
