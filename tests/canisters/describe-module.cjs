// Takes the Candid interface out of a Rust canister (`export_candid!`), writes it beside the module and
// into it, as the custom section that canister tools read.
// Usage: node describe-module.cjs IN.wasm OUT.wasm OUT.did
const fs = require('fs');

const [input, output, didFile] = process.argv.slice(2);
if (!didFile) {
  console.error('usage: node describe-module.cjs IN.wasm OUT.wasm OUT.did');
  process.exit(2);
}

const bytes = fs.readFileSync(input);
const wasm = new WebAssembly.Module(bytes);
const refuse = () => { throw new Error('the interface is read without running the canister'); };
const imports = {};
for (const { module, name } of WebAssembly.Module.imports(wasm)) {
  imports[module] ??= {};
  imports[module][name] = refuse;
}
const instance = new WebAssembly.Instance(wasm, imports);
const start = instance.exports.get_candid_pointer() >>> 0;
const memory = new Uint8Array(instance.exports.memory.buffer);
const did = Buffer.from(memory.slice(start, memory.indexOf(0, start)));

function leb(value) {
  const out = [];
  do {
    const rest = value >>> 7;
    out.push((value & 0x7f) | (rest ? 0x80 : 0));
    value = rest;
  } while (value);
  return Buffer.from(out);
}

const name = Buffer.from('icp:public candid:service');
const content = Buffer.concat([leb(name.length), name, did]);
fs.writeFileSync(output, Buffer.concat([bytes, Buffer.from([0]), leb(content.length), content]));
fs.writeFileSync(didFile, did);
