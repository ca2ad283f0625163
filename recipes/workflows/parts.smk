# snakemake --snakefile parts.smk --cores 4 results/lake/lake.contigs.tsv
# Each part scores its share of the blocks; the merge makes the results of an undivided run.
PARTS = int(config.get("virnucpro_parts", 4))
PART = "results/.parts/{sample}/{part}"


rule virnucpro_part:
    input:
        "reads/{sample}.fastq.gz",
    output:
        PART + "/run.json",
    log:
        "logs/virnucpro/{sample}.{part}.log",
    threads: 4
    retries: 1  # goes on with what the first attempt finished
    params:
        bundle=config.get("virnucpro_bundle", "mini-500"),
        out=PART,
        of=PARTS,
    shell:
        "virnucpro predict {input} -o {params.out} --part {wildcards.part}/{params.of}"
        " --sample {wildcards.sample} --bundle {params.bundle}"
        " --threads {threads} --allow-partial --no-progress 2> {log}"


rule virnucpro_merge:
    input:
        reads="reads/{sample}.fastq.gz",
        parts=expand(PART + "/run.json", part=range(1, PARTS + 1), allow_missing=True),
    output:
        contigs="results/{sample}/{sample}.contigs.tsv",
        viral="results/{sample}/{sample}.viral.fasta",
        multiqc="results/{sample}/{sample}.virnucpro_mqc.json",
    log:
        "logs/virnucpro/{sample}.merge.log",
    params:
        parts=expand(PART, part=range(1, PARTS + 1), allow_missing=True),
    shell:
        "virnucpro merge {params.parts} -o results/{wildcards.sample} --input {input.reads}"
        " --prefix {wildcards.sample} --no-progress 2> {log}"
