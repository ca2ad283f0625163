version 1.0

# Each part scores its share of the blocks; the merge makes the results of an undivided run.
workflow virnucpro_parts {
  input {
    File reads
    String sample
    Int parts = 4
    String bundle = "mini-500"
    String docker
  }
  scatter (number in range(parts)) {
    call score {
      input:
        reads = reads,
        sample = sample,
        part = number + 1,
        parts = parts,
        bundle = bundle,
        docker = docker,
    }
  }
  call merge {
    input:
      reads = reads,
      sample = sample,
      parts = score.part_tar,
      docker = docker,
  }
  output {
    File contigs = merge.contigs
    File viral = merge.viral
    File multiqc = merge.multiqc
    File run = merge.run
  }
}

task score {
  input {
    File reads
    String sample
    Int part
    Int parts
    String bundle
    Int cpu = 4
    Int memory_gb = 8
    String docker
  }
  command <<<
    set -euo pipefail
    virnucpro predict '~{reads}' -o part_~{part} --part ~{part}/~{parts} --sample '~{sample}' \
      --bundle '~{bundle}' --threads ~{cpu} --allow-partial --no-progress
    tar cf part_~{part}.tar part_~{part}
  >>>
  output {
    File part_tar = "part_~{part}.tar"
  }
  runtime {
    docker: docker
    cpu: cpu
    memory: "~{memory_gb} GB"
  }
}

task merge {
  input {
    File reads
    String sample
    Array[File] parts
    Int memory_gb = 8
    String docker
  }
  command <<<
    set -euo pipefail
    while read -r part; do tar xf "$part"; done < ~{write_lines(parts)}
    virnucpro merge part_* -o run --input '~{reads}' --prefix '~{sample}' --no-progress
  >>>
  output {
    File contigs = "run/~{sample}.contigs.tsv"
    File viral = "run/~{sample}.viral.fasta"
    File multiqc = "run/~{sample}.virnucpro_mqc.json"
    File run = "run/~{sample}.run.json"
  }
  runtime {
    docker: docker
    cpu: 1
    memory: "~{memory_gb} GB"
  }
}
