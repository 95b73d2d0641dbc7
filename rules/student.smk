# D_u + one feedback's labels -> student SFT -> student DPO


rule train_student_sft:
    input:
        model=lambda w: PLAN.manifest("models", w.student),
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=f"{ROOT}/labels/{CELL}/unlabelled/{{feedback}}/manifest.json",
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
        spec=lambda w: PLAN.training(w.recipe, w.student, "sft", "unlabelled", w.seed),
        code=code("train_student_sft"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_student_sft.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"


rule train_student_dpo:
    input:
        model=f"{ROOT}/students/{CELL}/{{student}}/{{feedback}}/{{recipe}}/sft/manifest.json",
        examples=f"{ROOT}/filtered/{{data}}/manifest.json",
        split=f"{ROOT}/splits/{CELL}/manifest.json",
        labels=f"{ROOT}/labels/{CELL}/unlabelled/{{feedback}}/manifest.json",
        reference_scores=f"{ROOT}/scores/{CELL}/unlabelled/students/{{student}}/{{feedback}}/{{recipe}}/sft/manifest.json",
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
        spec=lambda w: PLAN.training(w.recipe, w.student, "dpo", "unlabelled", w.seed),
        code=code("train_student_dpo"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/train_student_dpo.py"
        " --model {input.model} --examples {input.examples}"
        " --split {input.split} --labels {input.labels}"
        " --reference-scores {input.reference_scores}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"
