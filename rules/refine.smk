# paper B: questions -> prompts -> answers, again and again -> students -> test answers -> scores -> tables


rule import_questions:
    input:
        sources=lambda w: PLAN.question_sources(w.questions),
        answers=lambda w: PLAN.written_answers(w.questions),
    output:
        f"{ROOT}/questions/{{questions}}/manifest.json",
    log:
        f"{ROOT}/logs/import_questions/{{questions}}.log",
    group:
        "data"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.import_questions(w.questions),
        code=code("import_questions"),
    shell:
        "python scripts/import_questions.py --sources {input.sources} --answers {input.answers}"
        " {params.spec} --output {output} > {log} 2>&1"


# In no group: a model answers between one job and the next, and a group must have no such detour.
rule write_prompts:
    input:
        unpack(lambda w: PLAN.prompt_inputs(w.wording)),
    output:
        f"{ROOT}/prompts/{{wording}}/manifest.json",
    log:
        f"{ROOT}/logs/write_prompts/{{wording}}.log",
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.write_prompts(w.wording),
        code=code("write_prompts"),
    shell:
        "python scripts/write_prompts.py --questions {input.questions} --answers {input.answers}"
        " --example-questions {input.example_questions}"
        " --intents {input.intents} --intent-prompts {input.intent_prompts}"
        " {params.spec} --output {output} > {log} 2>&1"


rule answer_prompts:
    input:
        model=lambda w: PLAN.answering_model(PLAN.named(w.asked)),
        prompts=lambda w: PLAN.prompts(PLAN.named(w.asked)),
    output:
        f"{ROOT}/answers/{{asked}}/manifest.json",
    log:
        f"{ROOT}/logs/answer_prompts/{{asked}}.log",
    wildcard_constraints:
        asked=PLAN.asked_of("model"),
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("answer_prompts"),
        more=PLAN.generation_options(),
    params:
        spec=lambda w: PLAN.answer_prompts(PLAN.named(w.asked)),
        code=code("answer_prompts"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/answer_prompts.py"
        " --model {input.model} --prompts {input.prompts}"
        " {params.spec} --batch-size {resources.pass_size} {resources.more} --output {output} > {log} 2>&1"


# Local rules talk to an endpoint and compute nothing.
rule request_answers:
    input:
        prompts=lambda w: PLAN.prompts(PLAN.named(w.asked)),
        tuned=lambda w: PLAN.tuned_here(PLAN.named(w.asked)),
    output:
        f"{ROOT}/answers/{{asked}}/manifest.json",
    log:
        f"{ROOT}/logs/request_answers/{{asked}}.log",
    wildcard_constraints:
        asked=PLAN.asked_of("endpoint"),
    localrule: True
    container:
        IMAGES["light"].container
    resources:
        options=lambda w: PLAN.endpoint_options(PLAN.writer(PLAN.named(w.asked))),
    params:
        spec=lambda w: PLAN.request_answers(PLAN.named(w.asked)),
        code=code("request_answers"),
    shell:
        "python scripts/request_answers.py --prompts {input.prompts} --tuned {input.tuned}"
        " {params.spec} {resources.options} --output {output} > {log} 2>&1"


rule gather_records:
    input:
        questions=lambda w: PLAN.questions(CONFIG.tasks[w.task].train),
        answers=lambda w: PLAN.record_answers(PLAN.student(w)),
    output:
        f"{ROOT}/records/{STUDENT}/manifest.json",
    log:
        f"{ROOT}/logs/gather_records/{STUDENT}.log",
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.gather_records(PLAN.student(w)),
        code=code("gather_records"),
    shell:
        "python scripts/gather_records.py --questions {input.questions} --answers {input.answers}"
        " {params.spec} --output {output} > {log} 2>&1"


rule tune_student:
    input:
        model=lambda w: PLAN.manifest("models", CONFIG.writers[w.base].model),
        records=f"{ROOT}/records/{STUDENT}/manifest.json",
    output:
        f"{ROOT}/tuned/{STUDENT}/base-{{base}}/{{fine_tuning}}/manifest.json",
    log:
        f"{ROOT}/logs/tune_student/{STUDENT}/base-{{base}}/{{fine_tuning}}.log",
    wildcard_constraints:
        base=alternatives(PLAN.writers_of("model")),
    container:
        IMAGES["ml"].container
    threads: RUNTIME.threads
    resources:
        **model_job("tune_student"),
    params:
        spec=lambda w: PLAN.tune_student(w.base, w.fine_tuning, w.seed),
        code=code("tune_student"),
    shell:
        "launch {threads} {resources.devices} {resources.layout} scripts/tune_student.py"
        " --model {input.model} --records {input.records}"
        " {params.spec} --micro-batch-size {resources.pass_size} --output {output} > {log} 2>&1"


rule request_tuning:
    input:
        records=f"{ROOT}/records/{STUDENT}/manifest.json",
    output:
        f"{ROOT}/tuned/{STUDENT}/base-{{base}}/{{fine_tuning}}/manifest.json",
    log:
        f"{ROOT}/logs/request_tuning/{STUDENT}/base-{{base}}/{{fine_tuning}}.log",
    wildcard_constraints:
        base=alternatives(PLAN.writers_of("endpoint")),
    localrule: True
    container:
        IMAGES["light"].container
    resources:
        options=lambda w: PLAN.tuning_options(w.base),
    params:
        spec=lambda w: PLAN.request_tuning(w.base, w.fine_tuning, w.seed),
        code=code("request_tuning"),
    shell:
        "python scripts/request_tuning.py --records {input.records}"
        " {params.spec} {resources.options} --output {output} > {log} 2>&1"


rule rate_answers:
    input:
        answers=f"{ROOT}/answers/{{asked}}/manifest.json",
        questions=lambda w: PLAN.questions(PLAN.named(w.asked).questions),
    output:
        f"{ROOT}/rated/{{judge}}-{{rating}}-{{samples}}/answers/{{asked}}/manifest.json",
    log:
        f"{ROOT}/logs/rate_answers/{{judge}}-{{rating}}-{{samples}}/{{asked}}.log",
    wildcard_constraints:
        rating=r"[a-z-]+-\d+",
        samples=r"\d+",
    localrule: True
    container:
        IMAGES["light"].container
    resources:
        options=lambda w: PLAN.judge_options(w.judge),
    params:
        spec=lambda w: PLAN.rate_answers(w.judge, w.rating, w.samples),
        code=code("rate_answers"),
    shell:
        "python scripts/rate_answers.py --answers {input.answers} --questions {input.questions}"
        " {params.spec} {resources.options} --output {output} > {log} 2>&1"


rule score_answers:
    input:
        answers=f"{ROOT}/answers/{{asked}}/manifest.json",
        questions=lambda w: PLAN.questions(PLAN.named(w.asked).questions),
        ratings=lambda w: PLAN.ratings(PLAN.named(w.asked)),
        weak=lambda w: PLAN.scoring_weak(PLAN.named(w.asked)),
    output:
        f"{ROOT}/scores/b/answers/{{asked}}/manifest.json",
    log:
        f"{ROOT}/logs/score_answers/{{asked}}.log",
    group:
        "scores"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.score_answers(PLAN.named(w.asked)),
        code=code("score_answers"),
    shell:
        "python scripts/score_answers.py --answers {input.answers} --questions {input.questions}"
        " --ratings {input.ratings} --weak {input.weak}"
        " {params.spec} --output {output} > {log} 2>&1"


rule tabulate_transfer:
    input:
        scores=lambda w: PLAN.transfer_scores(w.transfer),
        records=lambda w: PLAN.transfer_records(w.transfer),
    output:
        f"{ROOT}/tables/{{transfer}}/manifest.json",
    log:
        f"{ROOT}/logs/tabulate_transfer/{{transfer}}.log",
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: PLAN.tabulate_transfer(w.transfer),
        code=code("tabulate_transfer"),
    shell:
        "python scripts/tabulate_transfer.py --scores {input.scores} --records {input.records}"
        " {params.spec} --output {output} > {log} 2>&1"


rule plot_panels:
    input:
        tables=f"{ROOT}/tables/{{transfer}}/manifest.json",
        published="published/values-b.csv",
    output:
        pdf=f"{ROOT}/figures/{{transfer}}.pdf",
        png=report(
            f"{ROOT}/figures/{{transfer}}.png",
            caption="../report/panels.rst",
            category="Paper B",
            labels={"figure": "panels", "experiment": "{transfer}"},
        ),
        csv=f"{ROOT}/figures/{{transfer}}.csv",
    log:
        f"{ROOT}/logs/plot_panels/{{transfer}}.log",
    wildcard_constraints:
        transfer=alternatives(PLAN.transfers_drawn("panels")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_panels"),
    shell:
        "python scripts/plot_panels.py --tables {input.tables} --published {input.published}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule plot_examples:
    input:
        tables=f"{ROOT}/tables/{{transfer}}/manifest.json",
    output:
        pdf=f"{ROOT}/figures/{{transfer}}.pdf",
        png=report(
            f"{ROOT}/figures/{{transfer}}.png",
            caption="../report/examples_shown.rst",
            category="Paper B",
            labels={"figure": "examples shown", "experiment": "{transfer}"},
        ),
        csv=f"{ROOT}/figures/{{transfer}}.csv",
    log:
        f"{ROOT}/logs/plot_examples/{{transfer}}.log",
    wildcard_constraints:
        transfer=alternatives(PLAN.transfers_drawn("examples")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        code=code("plot_examples"),
    shell:
        "python scripts/plot_examples.py --tables {input.tables}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} > {log} 2>&1"


rule write_transfer:
    input:
        tables=f"{ROOT}/tables/{{transfer}}/manifest.json",
        published="published/values-b.csv",
    output:
        md=f"{ROOT}/figures/{{transfer}}.md",
        html=report(
            f"{ROOT}/figures/{{transfer}}.html",
            caption="../report/transfer.rst",
            category="Paper B",
            labels={"figure": "table", "experiment": "{transfer}"},
        ),
        csv=f"{ROOT}/figures/{{transfer}}.csv",
    log:
        f"{ROOT}/logs/write_transfer/{{transfer}}.log",
    wildcard_constraints:
        transfer=alternatives(PLAN.transfers_drawn("maths", "bias", "baselines", "failures")),
    group:
        "tables"
    container:
        IMAGES["light"].container
    resources:
        **LIGHT,
    params:
        spec=lambda w: flags({"layout": CONFIG.transfers[w.transfer].figure}),
        code=code("write_transfer"),
    shell:
        "python scripts/write_transfer.py --tables {input.tables} --published {input.published}"
        " {params.spec} --md {output.md} --html {output.html} --csv {output.csv} > {log} 2>&1"
