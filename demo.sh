#!/usr/bin/env bash
# The whole pipeline on synthetic photographs of cars, on an ordinary CPU: environment, photographs, poses, meshes
# of the photographs, a generator, generated meshes. Prints one table at the end; output/demo/index.html shows all.
# Running it again continues where it stopped; afterwards it has nothing left to do but the table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

category=car
num_images=120
preset=cpu-30min                    # the options of all stages
steps=400                           # of the reconstruction: a third of the preset's
num_exported=16
precision=()                        # bfloat16 is faster only where the processor has matrix units for it
if grep -qs amx_bf16 /proc/cpuinfo; then precision=(--bfloat16); fi

dataset=synthetic_$category
name=demo_${category}_singletpl
output=output/demo
export TMG_PROGRESS=1               # a line per tenth where stderr is no terminal

# Runs the rest of its arguments as a python command and notes its duration under the stage's name
stage() {
    local title=$1 start=$SECONDS
    shift
    echo
    echo "== $title: python $*"
    .venv/bin/python "$@"
    printf '%s\t%s\n' "$title" "$((SECONDS - start))" >>"$output/durations.tsv"
}

echo "== environment"
bash scripts/setup_environment.sh
mkdir -p "$output"
printf 'environment\t%s\n' "$SECONDS" >>"$output/durations.tsv"

if [ ! -d "datasets/$dataset" ]; then
    stage photographs -m data.synthetic --dataset "$dataset" --category "$category" --num_images "$num_images"
fi
stage preparation -m data.prepare --dataset "$dataset"
stage "poses, step 1" pose_optimization_step1.py --dataset "$dataset" --mode singletpl --preset "$preset"
stage "poses, step 2" pose_optimization_step2.py --dataset "$dataset" --mode singletpl --preset "$preset" --visualize
run=(--name "$name" --dataset "$dataset" --preset "$preset")
stage reconstruction run_reconstruction.py "${run[@]}" --iters "$steps" ${precision[@]+"${precision[@]}"}
stage "reconstruction, evaluated" run_reconstruction.py "${run[@]}" --evaluate
stage "meshes of photographs" run_reconstruction.py "${run[@]}" --export_meshes --how_many "$num_exported" --overwrite
stage pseudo-ground-truth run_reconstruction.py "${run[@]}" --generate_pseudogt
stage generator run_generation.py "${run[@]}"
stage "generator, evaluated" run_generation.py "${run[@]}" --evaluate --proxy_distance
stage "generated meshes" run_generation.py "${run[@]}" --export_sample --how_many "$num_exported" \
    --interpolate 0:1 0:9 --export_morphs --overwrite

.venv/bin/python -m scripts.demo_report --dataset "$dataset" --name "$name" --output "$output"
