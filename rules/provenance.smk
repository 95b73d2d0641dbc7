# tables and models -> what others read: a card per model, the run as a whole as an RO-Crate


rule write_model_cards:
    input:
        tables=PLAN.measured(),
        citation="CITATION.cff",
        template="report/model_card.md",
    output:
        # The cards lie in the models' folders. As outputs of this rule they would have a model trained again that was
        # cleaned away to free space; so the index stands for them, which has the digest of each.
        f"{ROOT}/models.csv",
    log:
        f"{ROOT}/logs/write_model_cards.log",
    localrule: True
    container:
        IMAGES["light"].container
    params:
        code=code("write_model_cards"),
    shell:
        "python scripts/write_model_cards.py --tables {input.tables} --citation {input.citation}"
        " --template {input.template} --output {output} > {log} 2>&1"


rule export_crate:
    input:
        tables=PLAN.tables(),
        files=[*rules.report.output, *PLAN.figures(), *PLAN.scorecards(), *rules.write_model_cards.output],
        citation="CITATION.cff",
    output:
        workflow=directory(f"{ROOT}/workflow"),
        crate=f"{ROOT}/ro-crate-metadata.json",
    log:
        f"{ROOT}/logs/export_crate.log",
    localrule: True
    container:
        IMAGES["light"].container
    resources:
        # Told, but not compared: an edit of theirs that matters shows in what they make.
        snakefile=workflow.main_snakefile,
        configuration=shlex.join(map(str, CONFIG_FILES)),
        engine=snakemake_version,
    params:
        spec=PLAN.export_crate(),
        code=code("export_crate"),
    shell:
        "python scripts/export_crate.py --tables {input.tables} --files {input.files} --citation {input.citation}"
        " {params.spec} --snakefile {resources.snakefile:q} --configuration {resources.configuration}"
        " --engine {resources.engine} --workflow {output.workflow} --output {output.crate} > {log} 2>&1"
