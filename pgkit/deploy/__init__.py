"""Trained policies outside of training: use them, export them, show them.

In: a run directory, a policy file (``.safetensors``) or the name of a shipped policy. Out: actions, modules of PyTorch,
videos. Nothing here changes what is learnt.

========  ====================================================================================
load      from a run or a file to a policy
policy    ``TrainedPolicy``: actions for observations, as Stable-Baselines3 has it
module    the same as a plain ``torch.nn.Module``, for ``torch.export``, ONNX and safetensors
spaces    what an environment observes and takes, and the conversions to what networks see
export    a folder that others can load, with a model card (card) and a curve
hub       such a folder on the Hugging Face Hub (extra ``hub``)
show      episodes in Gymnasium's environment, in a window or a video
========  ====================================================================================

Start with ``load``. README.md beside this file has the examples.
"""
