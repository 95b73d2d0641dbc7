# D_l + human labels -> teacher SFT -> teacher DPO


rule train_teacher_sft:
    input:
        model=lambda w: PLAN.manifest("models", w.teacher),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=f"{ROOT}/labels/{CELL}/labelled/human/manifest.json",
    output:
        f"{ROOT}/teachers/{CELL}/{{teacher}}/{{recipe}}/sft/manifest.json",
    log:
        f"{ROOT}/logs/train_teacher_sft/{CELL}/{{teacher}}/{{recipe}}.log",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("train_teacher_sft"),
    params:
        spec=lambda w: PLAN.training(w.recipe, w.teacher, "sft", "labelled", w.seed),
        code=code("train_teacher_sft"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_teacher_sft.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"


rule train_teacher_dpo:
    input:
        model=f"{ROOT}/teachers/{CELL}/{{teacher}}/{{recipe}}/sft/manifest.json",
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=f"{ROOT}/labels/{CELL}/labelled/human/manifest.json",
        reference_scores=f"{ROOT}/scores/{CELL}/labelled/teachers/{{teacher}}/{{recipe}}/sft/manifest.json",
    output:
        f"{ROOT}/teachers/{CELL}/{{teacher}}/{{recipe}}/dpo/manifest.json",
    log:
        f"{ROOT}/logs/train_teacher_dpo/{CELL}/{{teacher}}/{{recipe}}.log",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("train_teacher_dpo"),
    params:
        spec=lambda w: PLAN.training(w.recipe, w.teacher, "dpo", "labelled", w.seed),
        code=code("train_teacher_dpo"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_teacher_dpo.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " --reference-scores {input.reference_scores}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"
