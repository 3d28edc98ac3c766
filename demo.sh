#!/usr/bin/env bash
# The whole pipeline on synthetic photographs of cars, on an ordinary CPU: environment, photographs, poses, meshes
# of the photographs, a generator, generated meshes. Prints one table at the end; output/demo/index.html shows all.
# Running it again continues where it stopped; afterwards it has nothing left to do but the table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

category=car
num_images=120
pose_resolution=128                 # pixels; the default of 256 takes twice as long in stage 2 and gains little here
reconstruction_steps=400
texture=256
num_exported=16
precision=()                        # bfloat16 is faster only where the processor has matrix units for it
if grep -qs amx_bf16 /proc/cpuinfo; then precision=(--bfloat16); fi

dataset=synthetic_$category
run=demo_${category}_singletpl
output=output/demo
export TMG_PROGRESS=1               # a line per tenth where stderr is no terminal

# Runs the rest of its arguments as a python command and notes its duration under the stage's name
stage() {
    local name=$1 start=$SECONDS
    shift
    echo
    echo "== $name: python $*"
    .venv/bin/python "$@"
    printf '%s\t%s\n' "$name" "$((SECONDS - start))" >>"$output/durations.tsv"
}

echo "== environment"
bash scripts/setup_environment.sh
mkdir -p "$output"
printf 'environment\t%s\n' "$SECONDS" >>"$output/durations.tsv"

if [ ! -d "datasets/$dataset" ]; then
    stage photographs -m data.synthetic --dataset "$dataset" --category "$category" --num_images "$num_images"
fi
stage preparation -m data.prepare --dataset "$dataset"
stage "poses, step 1" pose_optimization_step1.py --dataset "$dataset" --mode singletpl \
    --image_resolution "$pose_resolution"
stage "poses, step 2" pose_optimization_step2.py --dataset "$dataset" --mode singletpl \
    --image_resolution "$pose_resolution" --visualize
stage reconstruction run_reconstruction.py --name "$run" --dataset "$dataset" --iters "$reconstruction_steps" \
    --width 0.25 --image_resolution 128 --batch_size 10 ${precision[@]+"${precision[@]}"}
stage "reconstruction, evaluated" run_reconstruction.py --name "$run" --dataset "$dataset" --evaluate
stage "meshes of photographs" run_reconstruction.py --name "$run" --dataset "$dataset" --export_meshes \
    --how_many "$num_exported" --pseudogt_resolution "$texture" --overwrite
stage pseudo-ground-truth run_reconstruction.py --name "$run" --dataset "$dataset" --generate_pseudogt \
    --pseudogt_resolution "$texture"
stage generator run_generation.py --name "$run" --dataset "$dataset" --model linear --texture_resolution "$texture"
stage "generator, evaluated" run_generation.py --name "$run" --dataset "$dataset" --evaluate --proxy_distance \
    --batch_size 16
stage "generated meshes" run_generation.py --name "$run" --dataset "$dataset" --export_sample \
    --how_many "$num_exported" --batch_size 8 --interpolate 0 0:5 --export_morphs --overwrite

.venv/bin/python -m scripts.demo_report --dataset "$dataset" --name "$run" --output "$output"
