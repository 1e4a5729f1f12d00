// Compiles one Motoko source in one persistence mode (the compiler can't switch modes within a process).
// Usage: node build-motoko.cjs SOURCE.mo classic|eop GC OUT.wasm [OUT.did]
const fs = require('fs');
const path = require('path');

const [source, persistence, collector, wasmFile, didFile] = process.argv.slice(2);
const flags = { classic: 'classicOP', eop: 'enhancedOP' };
if (!wasmFile || !(persistence in flags)) {
  console.error('usage: node build-motoko.cjs SOURCE.mo classic|eop GC OUT.wasm [OUT.did]');
  process.exit(2);
}

const motoko = require('motoko').default;
motoko.loadPackage(require('motoko/packages/latest/core.json'));
motoko.compiler.gcFlags(flags[persistence]);
motoko.compiler.gcFlags(collector);

const name = path.basename(source);
motoko.write(name, fs.readFileSync(source, 'utf8'));
try {
  const built = motoko.wasm(name, 'ic');
  fs.writeFileSync(wasmFile, built.wasm);
  if (didFile) fs.writeFileSync(didFile, built.candid);
} catch (error) {
  // The message alone: the stack is the compiler's own, minified.
  console.error(`${source}: ${error.message}`);
  process.exit(1);
}
