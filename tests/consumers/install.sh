#!/usr/bin/env bash
# Installs the programs that tests/consumers/ runs packages in: install.sh FOLDER PYTHON, PYTHON being one that has torch.
# What cannot be had on this machine is said and left out; its tests are skipped then.
set -u
folder=$1 python=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

attempt() { # NAME COMMAND...: says whether it worked, and goes on in any case
  local name=$1 log
  shift
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    echo "consumers: $name is installed"
  else
    echo "consumers: $name cannot be had here, its tests are skipped: $(tail -n 1 "$log")"
  fi
  rm -f "$log"
}

old_core() { # as ilastik's tiktorch has it; torch is that of PYTHON, behind everything of its own
  local home=$folder/core_0.10.2
  "$python" -m venv "$home" &&
    "$home/bin/python" -m pip install --quiet bioimageio.core==0.10.2 bioimageio.spec==0.5.9.1 'pydantic<2.14' onnxruntime &&
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
      >"$("$home/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_of_the_other.pth"
}

oldest_spec() { # the first reader of the format 0.5; packages are read in it, not run
  "$python" -m venv "$folder/spec_0.5.0" &&
    "$folder/spec_0.5.0/bin/python" -m pip install --quiet bioimageio.spec==0.5.0 'pydantic<2.9'
}

node_onnxruntime() { # LIBRARY VERSION; its package holds the library for the CPU, the scripts would fetch others
  command -v node >/dev/null || { echo "there is no node" && return 1; }
  npm install --prefix "$folder/$1_$2" --ignore-scripts --fetch-retries=1 --fetch-timeout=60000 --no-audit --no-fund "$1@$2"
}

debian_libtorch() {
  if [ ! -e /usr/include/torch/script.h ]; then
    [ "$(id -u)" = 0 ] || { echo "only root can install libtorch-dev" && return 1; }
    local apt="apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=30"
    $apt update && $apt install -y --no-install-recommends libtorch-dev g++ || return 1
  fi
  g++ -O0 -std=c++17 "$here/run_libtorch.cpp" -o "$folder/run_libtorch_debian" \
    -I/usr/include/torch/csrc/api/include -ltorch -ltorch_cpu -lc10
}

wheel_libtorch() {
  local torch
  torch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)') || return 1
  g++ -O0 -std=c++20 "$here/run_libtorch.cpp" -o "$folder/run_libtorch_wheel" \
    -I"$torch/include" -I"$torch/include/torch/csrc/api/include" -L"$torch/lib" -Wl,-rpath,"$torch/lib" \
    -ltorch -ltorch_cpu -lc10
}

attempt "bioimageio.core 0.10.2" old_core
attempt "bioimageio.spec 0.5.0" oldest_spec
attempt "onnxruntime-node 1.13.1" node_onnxruntime onnxruntime-node 1.13.1
attempt "onnxruntime-node 1.27.0" node_onnxruntime onnxruntime-node 1.27.0
attempt "onnxruntime-web 1.30.0" node_onnxruntime onnxruntime-web 1.30.0
attempt "libtorch of Debian" debian_libtorch
attempt "libtorch of the torch wheel" wheel_libtorch
