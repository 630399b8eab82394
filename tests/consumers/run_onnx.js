// Runs ONNX outside Python: node run_onnx.js NODE_MODULES LIBRARY MODEL INPUT OUTPUT SIZE...
// INPUT and OUTPUT are float32 values in C order; the sizes of the output are printed. `node run_onnx.js NODE_MODULES
// LIBRARY --versions` prints the versions of the package and of Node.
const fs = require("fs");
const [modules, library, model, input, output, ...sizes] = process.argv.slice(2);
const ort = require(`${modules}/${library}`);

async function main() {
  if (model === "--versions") {
    const { version } = require(`${modules}/${library}/package.json`);
    return console.log(`${library} ${version}, Node ${process.versions.node}`);
  }
  const bytes = fs.readFileSync(input);
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const session = await ort.InferenceSession.create(fs.readFileSync(model));
  const tensor = new ort.Tensor("float32", values, sizes.map(Number));
  const result = (await session.run({ [session.inputNames[0]]: tensor }))[session.outputNames[0]];
  fs.writeFileSync(output, Buffer.from(result.data.buffer, result.data.byteOffset, result.data.byteLength));
  console.log(result.dims.join(" "));
}

main().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
