#!/usr/bin/env bash
# The whole pipeline on synthetic photographs of elephants, on an ordinary CPU: environment, photographs, poses,
# meshes, GAN, generated meshes. Prints one table at the end; results are in output/demo/.
# Running it again continues where it stopped; afterwards it has nothing left to do but the table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

category=elephant
num_images=120
pose_resolution=128                 # pixels; the default of 256 takes twice as long in stage 2 and gains little here
reconstruction_steps=400
gan_steps=2000
texture=128
width=0.25
num_exported=16                     # The GAN is evaluated once, at the end: --evaluate_freq is out of reach
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
    --image_resolution "$pose_resolution"
stage reconstruction run_reconstruction.py --name "$run" --dataset "$dataset" --iters "$reconstruction_steps" \
    --width "$width" --image_resolution 128 --batch_size 10 --lr 0.001 ${precision[@]+"${precision[@]}"}
stage "reconstruction, evaluated" run_reconstruction.py --name "$run" --dataset "$dataset" --evaluate
stage pseudo-ground-truth run_reconstruction.py --name "$run" --dataset "$dataset" --generate_pseudogt \
    --pseudogt_resolution "$texture"
stage GAN run_generation.py --name "$run" --dataset "$dataset" --iters "$gan_steps" --warmup_steps 1200 \
    --texture_resolution "$texture" --width "$width" --batch_size 8 --d_steps_per_g 1 --lr_g 0.0004 --lr_d 0.0008 \
    --mesh_regularization 0.0005 --evaluate_freq 100000 ${precision[@]+"${precision[@]}"}
stage "GAN, evaluated" run_generation.py --name "$run" --dataset "$dataset" --evaluate --proxy_distance --batch_size 16
stage "exported meshes" run_generation.py --name "$run" --dataset "$dataset" --export_sample \
    --how_many "$num_exported" --batch_size 8 --overwrite

rm -rf "$output/meshes"
cp -r "output/$run" "$output/meshes"
cp "output/$run.png" "$output/generated.png"
.venv/bin/python -m scripts.demo_report --dataset "$dataset" --name "$run" --output "$output"
