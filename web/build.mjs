// Builds the page: from src/ into the folder that is named, or into the package that the wheel takes.
// Names have a hash of the content, so that browsers may keep files; the order of what is written is always the same.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";

const out = process.argv[2] ?? "../api/ui/static";
await mkdir(out, { recursive: true });
for (const name of await readdir(out)) await rm(join(out, name));

const { metafile } = await build({
  entryPoints: ["src/main.tsx", "src/style.css"],
  outdir: out,
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  bundle: true,
  format: "esm",
  splitting: true,
  minify: true,
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});

const built = {};
for (const [file, { entryPoint }] of Object.entries(metafile.outputs)) if (entryPoint) built[entryPoint] = basename(file);
const page = await readFile("src/index.html", "utf8");
const html = page.replace("main.tsx", built["src/main.tsx"]).replace("style.css", built["src/style.css"]);
await writeFile(join(out, "index.html"), html);

// The libraries that are in it ask for their licences to go with them.
const packages = new Set();
for (const file of Object.keys(metafile.inputs)) {
  const name = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1];
  if (name) packages.add(name);
}
let licences = "";
for (const name of [...packages].sort()) {
  const folder = join("node_modules", name);
  const file = (await readdir(folder)).find((one) => /^licen[sc]e/i.test(one));
  const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  licences += `${name} ${version}\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n\n\n`;
}
const digest = createHash("sha256").update(licences).digest("hex").slice(0, 8).toUpperCase();
await writeFile(join(out, `licences-${digest}.txt`), licences);
