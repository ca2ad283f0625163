process VIRNUCPRO_PREDICT {
    tag "$meta.id"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/${task.accelerator ? 'environment.gpu.yml' : 'environment.yml'}"
    container "${ workflow.containerEngine == 'singularity' && !task.ext.singularity_pull_docker_container ?
        'https://depot.galaxyproject.org/singularity/virnucpro:0.1.0--pyhdfd78af_0' :
        'biocontainers/virnucpro:0.1.0--pyhdfd78af_0' }"

    input:
    tuple val(meta), path(sequences)
    path bundle

    output:
    tuple val(meta), path("${prefix}.contigs.tsv{,.gz}")                           , emit: contigs
    tuple val(meta), path("${prefix}.calls.tsv{,.gz}")                             , emit: calls
    tuple val(meta), path("${prefix}.regions.tsv")                                 , emit: regions
    tuple val(meta), path("${prefix}.pairs.tsv{,.gz}")                             , emit: pairs     , optional: true
    tuple val(meta), path("${prefix}.viral.fasta")                                 , emit: fasta     , optional: true
    tuple val(meta), path("${prefix}.viral_names.txt")                             , emit: names     , optional: true
    tuple val(meta), path("${prefix}.prediction_results.txt{,.gz}")                , emit: frames    , optional: true
    tuple val(meta), path("${prefix}.prediction_results_highestscore.csv{,.gz}")   , emit: chunks    , optional: true
    tuple val(meta), path("${prefix}.failed.tsv")                                  , emit: failed    , optional: true
    tuple val(meta), path("${prefix}.report.html")                                 , emit: report
    tuple val(meta), path("${prefix}.run.json")                                    , emit: run
    tuple val(meta), path("${prefix}.log.txt")                                     , emit: log
    path "${prefix}.virnucpro*_mqc.json"                                           , emit: multiqc_files, topic: multiqc_files
    tuple val("${task.process}"), val('virnucpro'), eval("virnucpro --version | sed 's/virnucpro //'"), emit: versions_virnucpro, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def files = sequences instanceof List ? sequences : [sequences]
    def input = meta.single_end == false && files.size() == 2 ? "${files[0]} --mates ${files[1]}" : files.join(' ')
    def chosen = bundle ? "--bundle ${bundle}" : ''
    def gpus = task.accelerator ? '--gpus all' : '--gpus none'
    """
    virnucpro predict \\
        ${input} \\
        -o . \\
        --prefix ${prefix} \\
        ${files.size() == 1 || input.contains('--mates') ? "--sample ${prefix}" : ''} \\
        ${chosen} \\
        ${gpus} \\
        --threads ${task.cpus} \\
        --no-progress \\
        ${args}
    """

    stub:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo ${args}

    touch ${prefix}.contigs.tsv ${prefix}.calls.tsv ${prefix}.regions.tsv
    touch ${prefix}.viral.fasta ${prefix}.viral_names.txt
    touch ${prefix}.prediction_results.txt ${prefix}.prediction_results_highestscore.csv
    touch ${prefix}.report.html ${prefix}.run.json ${prefix}.log.txt
    touch ${prefix}.virnucpro_mqc.json ${prefix}.virnucpro_general_mqc.json
    """
}
