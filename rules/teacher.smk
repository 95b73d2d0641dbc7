# D_l + human labels -> teacher SFT -> teacher DPO, or a reward model


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
        spec=lambda w: PLAN.training(w.recipe, w.teacher, "sft", "labelled", w),
        code=code("train_teacher_sft"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_teacher_sft.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"


rule train_teacher_dpo:
    input:
        model=lambda w: PLAN.run(w, PLAN.before_dpo("teachers", w.teacher, w.recipe)),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=f"{ROOT}/labels/{CELL}/labelled/human/manifest.json",
        reference_scores=lambda w: PLAN.scores(w, "labelled", PLAN.before_dpo("teachers", w.teacher, w.recipe)),
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
        spec=lambda w: PLAN.training(w.recipe, w.teacher, "dpo", "labelled", w),
        code=code("train_teacher_dpo"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_teacher_dpo.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " --reference-scores {input.reference_scores}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"


rule train_teacher_reward:
    input:
        model=lambda w: PLAN.manifest("models", w.teacher),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=f"{ROOT}/labels/{CELL}/labelled/human/manifest.json",
    output:
        f"{ROOT}/teachers/{CELL}/{{teacher}}/{{recipe}}/reward/manifest.json",
    log:
        f"{ROOT}/logs/train_teacher_reward/{CELL}/{{teacher}}/{{recipe}}.log",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("train_teacher_reward"),
    params:
        spec=lambda w: PLAN.training(w.recipe, w.teacher, "reward", "labelled", w),
        code=code("train_teacher_reward"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_teacher_reward.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"
