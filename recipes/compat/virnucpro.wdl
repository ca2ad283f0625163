version 1.0

# In the place of the tasks of these names in viral-pipelines' tasks_metagenomics.wdl: the same
# inputs and outputs. New inputs are bundle and allow_partial; any run leaves run_files, too.

task classify_virnucpro {
  meta {
    description: "Runs VirNucPro on unmapped reads or contigs, on a GPU if there is one."
    author: "The VirNucPro developers"
  }

  input {
    File    reads_input

    Int     expected_length = 300
    String? bundle

    Boolean parallel = false
    Boolean persist_model = false
    Boolean use_gpu = false
    Int     batch_size = 256
    Int?    esm_batch_size
    Int?    dnabert_batch_size
    Boolean resume = false
    Boolean allow_partial = false

    String? accelerator_type
    Int?    accelerator_count
    String? gpu_type
    Int?    gpu_count
    String? vm_size

    String  docker
  }

  parameter_meta {
    reads_input: {
      description: "Reads or contigs. BAM, FASTA or FASTQ, compressed or not.",
      patterns: ["*.bam", "*.fasta", "*.fa", "*.fasta.gz", "*.fa.gz", "*.fastq.gz"],
      category: "required"
    }
    expected_length: {
      description: "Chunk length in nt, 300 or 500. The task fails if it is not the bundle's.",
      category: "common"
    }
    bundle: {
      description: "Name of a bundle in the image, or its directory there. Default: the published model of that length. mini-300 and mini-500 are in every image; their scores are not those of the published model.",
      category: "common"
    }
    parallel: {
      description: "Compute on all GPUs of the machine.",
      category: "advanced"
    }
    persist_model: {
      description: "Without effect: a bundle is loaded once.",
      category: "advanced"
    }
    use_gpu: {
      description: "Fail without a GPU instead of computing on the processor.",
      category: "common"
    }
    batch_size: {
      description: "Without effect: the head scores each batch of the encoders at once.",
      category: "advanced"
    }
    esm_batch_size: {
      description: "Most tokens of a batch of ESM-2.",
      category: "advanced"
    }
    dnabert_batch_size: {
      description: "Most tokens of a batch of DNABERT-S.",
      category: "advanced"
    }
    resume: {
      description: "Go on with an unfinished run in the same folder.",
      category: "advanced"
    }
    allow_partial: {
      description: "Succeed when some records could not be processed; failed.tsv in run_files lists them.",
      category: "advanced"
    }
    docker: {
      description: "An image made with recipes/Dockerfile.cuda or recipes/Dockerfile.cpu.",
      category: "required"
    }
  }

  String basename = sub(basename(reads_input), "\\.(bam|fasta\\.gz|fa\\.gz|fasta|fa)$", "")

  command <<<
    set -ex -o pipefail

    /opt/virnucpro_cli.py "~{reads_input}" "~{basename}.virnucpro.tsv" --expected-length ~{expected_length} \
      ~{true='--use-gpu' false='' use_gpu} \
      ~{true='--parallel' false='' parallel} \
      ~{true='--persistent-models' false='' persist_model} \
      --batch-size ~{batch_size} \
      ~{'--esm-batch-size=' + esm_batch_size} \
      ~{'--dnabert-batch-size=' + dnabert_batch_size} \
      ~{'--bundle=' + bundle} \
      --threads $(nproc) \
      ~{true='--resume' false='' resume} \
      ~{true='--allow-partial' false='' allow_partial}

    tar -czf "~{basename}.virnucpro.tgz" \
      "~{basename}.virnucpro.tsv" \
      "~{basename}.virnucpro_highestscore.csv"
    tar -czf "~{basename}.virnucpro.run.tgz" "~{basename}.virnucpro.run"
  >>>

  output {
    File virnuc_pro_scores = "~{basename}.virnucpro.tgz"
    File run_files = "~{basename}.virnucpro.run.tgz"
    File report = "~{basename}.virnucpro.run/report.html"
    File multiqc = "~{basename}.virnucpro.run/virnucpro_mqc.json"
  }

  # Every platform has its own spelling of a GPU.
  runtime {
    docker: docker
    memory: "30 GB"
    cpu: 8
    disks: "local-disk 120 SSD"
    disk: "120 GB" # TES
    gpu: true
    dx_instance_type: "mem1_ssd1_gpu2_x8"
    dx_timeout: "6H"
    acceleratorType: select_first([accelerator_type, "nvidia-tesla-t4"])
    acceleratorCount: select_first([accelerator_count, 1])
    gpuType: select_first([gpu_type, "nvidia-tesla-t4"])
    gpuCount: select_first([gpu_count, 1])
    vm_size: select_first([vm_size, "Standard_NC6"])
    maxRetries: 1
  }
}

task classify_virnucpro_contigs {
  meta {
    description: "Calls contigs viral or not from the scores of their chunks, by margins weighted with their confidence."
    author: "The VirNucPro developers"
  }

  input {
    File    virnucpro_scores_tsv

    Float   min_viral_prop = 0.1
    Float   min_nonviral_prop = 0.1
    Int     min_chunks = 5
    String  id_col = "Modified_ID"
    String  id_pattern = "^(.+)_chunk_[0-9]+$"

    String  docker
  }

  parameter_meta {
    virnucpro_scores_tsv: {
      description: "virnuc_pro_scores of classify_virnucpro, or the *_highestscore.csv in it.",
      patterns: ["*.tgz", "*.tar.gz", "*.tar.zst", "*_highestscore.csv", "*.tsv"],
      category: "required"
    }
    min_viral_prop: {
      description: "Least share of confident viral chunks, ambiguous ones left out.",
      category: "advanced"
    }
    min_nonviral_prop: {
      description: "Least share of confident non-viral chunks, ambiguous ones left out.",
      category: "advanced"
    }
    min_chunks: {
      description: "Contigs of fewer chunks are one tier lower.",
      category: "advanced"
    }
    id_col: {
      description: "Column with the ids of chunks.",
      category: "advanced"
    }
    id_pattern: {
      description: "Regular expression whose first group is the contig. Default: all before _chunk_N, for names of any assembler; (NODE_[0-9]+) for those of SPAdes alone.",
      category: "advanced"
    }
    docker: {
      description: "An image made with recipes/Dockerfile.cuda or recipes/Dockerfile.cpu.",
      category: "required"
    }
  }

  String out_filename = basename(virnucpro_scores_tsv, ".tsv") + ".contigs_classified.tsv"
  Int disk_size = 50

  command <<<
    set -e
    /opt/virnucpro_contigs.py "~{virnucpro_scores_tsv}" "~{out_filename}" \
      --min-viral-prop ~{min_viral_prop} --min-nonviral-prop ~{min_nonviral_prop} \
      --min-chunks ~{min_chunks} --id-col '~{id_col}' --id-pattern '~{id_pattern}'
  >>>

  output {
    File contig_classifications = "~{out_filename}"
  }

  runtime {
    docker: docker
    memory: "2 GB"
    cpu: 1
    disks: "local-disk ~{disk_size} HDD"
    disk: "~{disk_size} GB" # TES
    dx_instance_type: "mem1_ssd1_v2_x2"
    preemptible: 2
    maxRetries: 2
  }
}
