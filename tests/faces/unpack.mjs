// Unpacks the browser of the installed package, its libraries and its font into FOLDER/chromium: node unpack.mjs FOLDER
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const folder = process.argv[2];
const place = join(folder, "chromium");
// It unpacks to the folder for temporary files, and libraries only where it takes the machine for a bare one.
process.env.TMPDIR = place;
process.env.AWS_EXECUTION_ENV = "AWS_Lambda_nodejs20.x";
const required = createRequire(join(folder, "package.json"))("@sparticuz/chromium");
await (required.default ?? required).executablePath();
// Text is measured in the same font on every machine.
writeFileSync(
  join(place, "fonts", "fonts.conf"),
  `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>${join(place, "fonts", "fonts")}</dir><cachedir>${join(place, "fonts", "cache")}</cachedir></fontconfig>
`,
);
