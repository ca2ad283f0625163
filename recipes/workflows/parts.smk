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
        # --rerun, and --force below: the same command comes again when an input has changed.
        "virnucpro predict {input:q} -o {params.out:q} --part {wildcards.part}/{params.of} --rerun"
        " --sample {wildcards.sample:q} --bundle {params.bundle:q}"
        " --threads {threads} --allow-partial --no-progress 2> {log:q}"


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
        out="results/{sample}",
    shell:
        "virnucpro merge {params.parts:q} -o {params.out:q} --input {input.reads:q}"
        " --prefix {wildcards.sample:q} --force --no-progress 2> {log:q}"
