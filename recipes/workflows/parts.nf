// include { VIRNUCPRO_PARTS } from './parts.nf'
// Each part scores its share of the blocks; the merge makes the results of an undivided run.
process VIRNUCPRO_PART {
    tag "${sample} ${part}/${parts}"
    label 'process_medium'

    input:
    tuple val(sample), path(reads), val(part), val(parts)
    path bundle

    output:
    tuple val(sample), path(reads), path("part_${part}")

    script:
    def chosen = bundle ? "--bundle ${bundle}" : ''
    """
    virnucpro predict ${reads} -o part_${part} --part ${part}/${parts} --sample '${sample}' \\
        ${chosen} --threads ${task.cpus} --allow-partial --no-progress
    """
}

process VIRNUCPRO_MERGE {
    tag "${sample}"

    input:
    tuple val(sample), path(reads), path(parts)

    output:
    tuple val(sample), path("${sample}.contigs.tsv"), emit: contigs
    tuple val(sample), path("${sample}.viral.fasta"), emit: viral
    path "${sample}.virnucpro_mqc.json", emit: multiqc
    path "${sample}.run.json", emit: run

    script:
    """
    virnucpro merge ${parts} -o . --input ${reads} --prefix '${sample}' --no-progress
    """
}

workflow VIRNUCPRO_PARTS {
    take:
    samples // (sample, reads)
    bundle
    parts // how many

    main:
    scattered = samples.combine(Channel.of(1..parts)).map { sample, reads, part ->
        tuple(sample, reads, part, parts)
    }
    scored = VIRNUCPRO_PART(scattered, bundle)
    gathered = scored.groupTuple(size: parts).map { sample, reads, folders ->
        tuple(sample, reads[0], folders)
    }
    VIRNUCPRO_MERGE(gathered)

    emit:
    contigs = VIRNUCPRO_MERGE.out.contigs
    viral = VIRNUCPRO_MERGE.out.viral
    multiqc = VIRNUCPRO_MERGE.out.multiqc
}
