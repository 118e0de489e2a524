#!/bin/sh
# verl 0.9 on Ray with a SARM's reward: 64 GPUs as 7 machines that roll out and train in turn, and 3 GPUs for rewards.
# Of the eighth machine, which the reward's replicas share, 5 GPUs stay free.
# verl's synchronous trainer puts the policy and its rollouts on the same GPUs.
# The reward is deployed before (README.md). Not run on GPUs; its keys are checked by make test-engines.
set -eu

POLICY=${POLICY:-meta-llama/Llama-3.1-8B-Instruct}
TRAIN=${TRAIN:-train.parquet}
TEST=${TEST:-test.parquet}

ray job submit --address="${RAY_API:-http://127.0.0.1:8265}" \
  -- python3 -m verl.trainer.main_ppo \
  reward.reward_manager.name=sarm \
  reward.num_workers=16 \
  +reward.reward_kwargs.sarm.url=http://127.0.0.1:8000 \
  +reward.reward_kwargs.sarm.patience=600 \
  algorithm.adv_estimator=rloo \
  algorithm.use_kl_in_reward=True \
  algorithm.kl_ctrl.kl_coef=0.01 \
  data.train_files="$TRAIN" \
  data.val_files="$TEST" \
  data.prompt_key=prompt \
  data.return_raw_chat=True \
  data.train_batch_size=448 \
  data.max_prompt_length=512 \
  data.max_response_length=512 \
  actor_rollout_ref.model.path="$POLICY" \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=4 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.5 \
  actor_rollout_ref.actor.optim.lr=5e-7 \
  actor_rollout_ref.actor.ppo_mini_batch_size=448 \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.ref.log_prob_use_dynamic_bsz=True \
  trainer.nnodes="${NODES:-7}" \
  trainer.n_gpus_per_node=8 \
  trainer.logger='["console"]' \
  trainer.total_epochs=1
