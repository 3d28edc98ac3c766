#!/usr/bin/env bash
# Makes the trained models that come with the repository: checkpoints_recon/ and checkpoints_gan/
# pretrained_synthetic_car_singletpl/model.pth. On one thread, so that the same machine can make the same bytes again.
# Works in a folder of its own (default: a temporary one), where running it again continues.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${1:-$(mktemp -d)}

dataset=synthetic_car
run=pretrained_synthetic_car_singletpl
export OMP_NUM_THREADS=1 TMG_THREADS=1 TMG_PROGRESS=1 PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH}
python=$repository/.venv/bin/python

mkdir -p "$work/cache"
cd "$work"
ln -sfn "$repository/mesh_templates" mesh_templates
ln -sfn "$repository/cache/remeshed_templates" cache/remeshed_templates

call() {
    echo
    echo "== python $*"
    "$python" "$@"
}
[ -d "datasets/$dataset" ] || call -m data.synthetic --dataset "$dataset" --category car --num_images 300 --seed 2
call -m data.prepare --dataset "$dataset"
for step in 1 2; do
    call "$repository/pose_optimization_step$step.py" --dataset "$dataset" --mode singletpl --image_resolution 128
done
reconstruction=("$repository/run_reconstruction.py" --name "$run" --dataset "$dataset" --gpu_ids cpu)
call "${reconstruction[@]}" --iters 1500 --width 0.235 --image_resolution 128 --batch_size 10
call "${reconstruction[@]}" --evaluate
call "${reconstruction[@]}" --generate_pseudogt --pseudogt_resolution 128
call "$repository/run_generation.py" --name "$run" --dataset "$dataset" --gpu_ids cpu --model linear \
    --texture_resolution 128

# Half precision halves the files
for folder in checkpoints_recon checkpoints_gan; do
    mkdir -p "$repository/$folder/$run"
    cp "$folder/$run/model.pth" "$repository/$folder/$run/model.pth"
    call -m scripts.half_model "$repository/$folder/$run/model.pth"
done
