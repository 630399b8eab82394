// Runs TorchScript in libtorch, as Fiji's deepImageJ does: run_libtorch MODEL INPUT OUTPUT SIZE...
// INPUT and OUTPUT are float32 values in C order; the sizes of the output are printed. `run_libtorch --versions` prints the
// version of libtorch.
#include <torch/script.h>
#include <torch/version.h>

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  try {
    if (argc == 2 && std::string(argv[1]) == "--versions") {
      std::cout << "libtorch " << TORCH_VERSION << std::endl;
      return 0;
    }
    if (argc < 5) throw std::runtime_error("usage: run_libtorch MODEL INPUT OUTPUT SIZE...");
    std::vector<int64_t> sizes;
    for (int i = 4; i < argc; ++i) sizes.push_back(std::stoll(argv[i]));
    torch::Tensor input = torch::zeros(sizes, torch::kFloat32);
    std::ifstream source(argv[2], std::ios::binary);
    source.read(static_cast<char*>(input.data_ptr()), input.nbytes());
    if (!source) throw std::runtime_error("INPUT is shorter than its sizes");
    torch::NoGradGuard no_grad;
    torch::jit::script::Module module = torch::jit::load(argv[1]);
    module.eval();
    torch::Tensor output = module.forward({input}).toTensor().to(torch::kFloat32).contiguous();
    std::ofstream(argv[3], std::ios::binary).write(static_cast<char*>(output.data_ptr()), output.nbytes());
    for (int64_t size : output.sizes()) std::cout << size << " ";
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
