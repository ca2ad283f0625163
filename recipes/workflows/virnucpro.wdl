version 1.0

task virnucpro {
  input {
    File reads
    String sample
    String bundle = "mini-500"
    Int cpu = 4
    Int memory_gb = 8
    String docker
  }
  command <<<
    set -euo pipefail
    virnucpro predict '~{reads}' -o run --rerun --prefix '~{sample}' --sample '~{sample}' \
      --bundle ~{bundle} --threads ~{cpu} --allow-partial --no-progress
  >>>
  output {
    File contigs = "run/~{sample}.contigs.tsv"
    File viral = "run/~{sample}.viral.fasta"
    File multiqc = "run/~{sample}.virnucpro_mqc.json"
    File run = "run/~{sample}.run.json"
  }
  runtime {
    docker: docker
    cpu: cpu
    memory: "~{memory_gb} GB"
  }
}
