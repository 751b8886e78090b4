// All of the public API: train, load, step, sample. Free of YAML, CUDA and oneDNN types.
#pragma once

#include "charrnn/checkpoint.h"
#include "charrnn/config.h"
#include "charrnn/error.h"
#include "charrnn/network_shape.h"
#include "charrnn/rnn.h"
#include "charrnn/sampler.h"
#include "charrnn/trainer.h"
#include "charrnn/vocabulary.h"
