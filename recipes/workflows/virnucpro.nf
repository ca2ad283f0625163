// include { VIRNUCPRO } from './virnucpro.nf'
process VIRNUCPRO {
    tag "${sample}"
    label 'process_medium'

    input:
    tuple val(sample), path(reads)
    path bundle

    output:
    tuple val(sample), path("${sample}.contigs.tsv"), emit: contigs
    tuple val(sample), path("${sample}.viral.fasta"), emit: viral
    path "${sample}.virnucpro_mqc.json", emit: multiqc
    path "${sample}.run.json", emit: run

    script:
    def chosen = bundle ? "--bundle ${bundle}" : ''
    def inputs = reads instanceof List && reads.size() == 2 ? "${reads[0]} --mates ${reads[1]}" : reads
    """
    virnucpro predict ${inputs} -o . --rerun --prefix '${sample}' --sample '${sample}' \\
        ${chosen} --threads ${task.cpus} --allow-partial --no-progress
    """
}
