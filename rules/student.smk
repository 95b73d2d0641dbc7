# D_u + one feedback's labels -> student SFT -> student DPO


rule train_student_sft:
    input:
        model=lambda w: PLAN.manifest("models", w.student),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=lambda w: PLAN.labels(w, PLAN.learns_from(w.feedback), w.feedback),
    output:
        f"{ROOT}/students/{CELL}/{{student}}/{{feedback}}/{{recipe}}/sft/manifest.json",
    log:
        f"{ROOT}/logs/train_student_sft/{CELL}/{{student}}/{{feedback}}/{{recipe}}.log",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("train_student_sft"),
    params:
        spec=lambda w: PLAN.training(w.recipe, w.student, "sft", PLAN.learns_from(w.feedback), w),
        code=code("train_student_sft"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_student_sft.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"


rule train_student_dpo:
    input:
        model=lambda w: PLAN.run(w, PLAN.before_dpo("students", w.student, w.recipe, w.feedback)),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=lambda w: PLAN.labels(w, PLAN.learns_from(w.feedback), w.feedback),
        reference_scores=lambda w: PLAN.scores(
            w, PLAN.learns_from(w.feedback), PLAN.before_dpo("students", w.student, w.recipe, w.feedback)
        ),
    output:
        f"{ROOT}/students/{CELL}/{{student}}/{{feedback}}/{{recipe}}/dpo/manifest.json",
    log:
        f"{ROOT}/logs/train_student_dpo/{CELL}/{{student}}/{{feedback}}/{{recipe}}.log",
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("train_student_dpo"),
    params:
        spec=lambda w: PLAN.training(w.recipe, w.student, "dpo", PLAN.learns_from(w.feedback), w),
        code=code("train_student_dpo"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_student_dpo.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " --reference-scores {input.reference_scores}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"
