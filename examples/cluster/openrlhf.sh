#!/bin/sh
# OpenRLHF 0.11 on Ray with a SARM's reward: 64 GPUs as 24 for the policy, 37 for rollouts, 3 for the reward.
# The reward is deployed before (README.md). Not run on GPUs; its options are checked by make test-engines.
set -eu

REWARD=${REWARD:-$(python3 -m sarm_control.engines.openrlhf)}
POLICY=${POLICY:-meta-llama/Llama-3.1-8B-Instruct}
PROMPTS=${PROMPTS:-prompts.jsonl}
OUT=${OUT:-checkpoints/openrlhf}

ray job submit --address="${RAY_API:-http://127.0.0.1:8265}" \
  --runtime-env-json='{"env_vars": {"SARM_REWARD_URL": "http://127.0.0.1:8000"}}' \
  -- python3 -m openrlhf.cli.train_ppo_ray \
  --reward.remote_url "$REWARD" \
  --actor.model_name_or_path "$POLICY" \
  --actor.num_nodes "${POLICY_NODES:-3}" \
  --actor.num_gpus_per_node 8 \
  --ref.num_nodes "${POLICY_NODES:-3}" \
  --ref.num_gpus_per_node 8 \
  --train.colocate_actor_ref \
  --vllm.num_engines "${ROLLOUTS:-37}" \
  --vllm.tensor_parallel_size 1 \
  --vllm.sync_backend nccl \
  --vllm.gpu_memory_utilization 0.9 \
  --train.async_enable \
  --algo.advantage.estimator rloo \
  --rollout.n_samples_per_prompt 4 \
  --rollout.batch_size 384 \
  --train.batch_size 384 \
  --rollout.micro_batch_size 4 \
  --train.micro_batch_size 4 \
  --rollout.max_new_tokens 512 \
  --data.max_len 1024 \
  --data.prompt_dataset "$PROMPTS" \
  --data.input_key prompt \
  --data.apply_chat_template \
  --ds.zero_stage 3 \
  --ds.param_dtype bf16 \
  --ds.packing_samples \
  --actor.gradient_checkpointing_enable \
  --actor.adam.lr 5e-7 \
  --algo.kl.init_coef 0.01 \
  --reward.clip_range -1000 1000 \
  --ckpt.output_dir "$OUT"
