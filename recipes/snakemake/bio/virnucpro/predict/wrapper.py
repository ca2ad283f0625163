"""Snakemake wrapper of virnucpro predict: any of a run's files as named outputs."""

import shutil
from pathlib import Path
from shlex import quote

from snakemake.shell import shell

FILES = {
    "contigs": "contigs.tsv",
    "calls": "calls.tsv",
    "pairs": "pairs.tsv",
    "regions": "regions.tsv",
    "regions_bed": "regions.bed",
    "viral_fasta": "viral.fasta",
    "viral_names": "viral_names.txt",
    "frame_scores": "prediction_results.txt",
    "chunk_scores": "prediction_results_highestscore.csv",
    "report": "report.html",
    "multiqc": "virnucpro_mqc.json",
    "multiqc_general": "virnucpro_general_mqc.json",
    "run_json": "run.json",
}
job = snakemake  # noqa: F821  (given by Snakemake)
if unknown := sorted({*job.output.keys()} - FILES.keys()):
    raise ValueError(f"outputs must be of {', '.join(FILES)}; got {', '.join(unknown)}")
if len(job.output.keys()) < len(job.output):
    raise ValueError(f"name each output, as contigs=...; names are {', '.join(FILES)}")

inputs = [job.input.reads] if isinstance(job.input.reads, str) else [*job.input.reads]
options = {
    "mates": job.input.get("mates"),
    "bundle": job.params.get("bundle"),
    "sample": job.params.get("sample"),
}
chosen = [f"--{name}={value}" for name, value in options.items() if value]
extra = job.params.get("extra", "")
log = f"2> {quote(job.log[0])}" if job.log else ""  # log_fmt_shell does not quote
# No output, so it is still there when a job that failed is tried again, and the run goes on.
run_dir = Path(f"{job.output[0]}.run")

shell(
    "virnucpro predict {inputs:q} -o {run_dir:q} {chosen:q} --threads {job.threads}"
    " --allow-partial --rerun --no-progress {extra} {log}"
)
for name, path in job.output.items():
    shutil.move(run_dir / FILES[name], path)
shutil.rmtree(run_dir)
