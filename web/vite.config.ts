import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const here = fileURLToPath(new URL(".", import.meta.url));

const aliases = {
  // Not needed: remote files, and a compression whose decoder is a file of its own.
  lerc: join(here, "src/no-lerc.ts"),
};

/**
 * Let numcodecs bind its WebAssembly without `new Function`, which the policy of the page forbids: the functions that emscripten writes
 * as text all convert their arguments, call, release the arguments and convert the result.
 */
function bindWithoutEval(): Plugin {
  return {
    name: "bind-without-eval",
    transform(code, id) {
      if (!/numcodecs\/dist\/(blosc|lz4|zstd)\.js$/.test(id.replaceAll("\\", "/"))) return null;
      const changed = code.replaceAll("= Function;", "= bindFunction;");
      if (changed.split("= bindFunction;").length !== 2) throw new Error(`${id} binds its WebAssembly in another way: change bindWithoutEval`);
      return { code: `${changed}\n${bindFunction}`, map: null };
    },
  };
}

// Takes the parameters and the body as `Function` does, and returns a function that does the same as the body.
function bindFunction(...texts: string[]): (...values: unknown[]) => (...args: unknown[]) => unknown {
  type Bound = Record<string, any>;
  const body = texts.pop()!;
  const [keeps, returns] = [body.includes("var destructors"), body.includes("var ret ")];
  return (...values) => {
    const bound: Bound = Object.fromEntries(texts.map((name, i) => [name, values[i]]));
    const types = texts.filter((name) => /^argType\d+$/.test(name)).map((name) => bound[name] as Bound);
    return (...args) => {
      if (args.length !== types.length) bound.throwBindingError(`called with ${args.length} arguments, expected ${types.length}`);
      const destructors: unknown[] | null = keeps ? [] : null;
      const wired = types.map((type, i) => type.toWireType(destructors, args[i]) as unknown);
      const result: unknown = bound.invoker(bound.fn, ...wired);
      if (keeps) bound.runDestructors(destructors);
      else wired.forEach((value, i) => bound[`arg${i}Wired_dtor`]?.(value));
      return returns ? bound.retType.fromWireType(result) : undefined;
    };
  };
}

/** Write the script and the style into the page, so that it is one file. The script stays inert until the page names its hash. */
function singleFile(): Plugin {
  return {
    name: "single-file",
    enforce: "post",
    generateBundle(_, bundle) {
      const page = bundle["index.html"];
      if (page?.type !== "asset") throw new Error("there is no index.html");
      let html = String(page.source);
      for (const [name, file] of Object.entries(bundle)) {
        if (file === page) continue;
        if (file.type === "chunk") {
          html = html.replace(/<script type="module"[^>]*><\/script>/, "");
          const code = file.code.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--").trim();
          html = html.replace("</body>", () => `<script type="module">${code}</script>\n  </body>`);
        } else if (name.endsWith(".css")) {
          html = html.replace(/<link rel="stylesheet"[^>]*>/, () => `<style>${String(file.source).trim()}</style>`);
        } else throw new Error(`${name} cannot be written into the page`);
        delete bundle[name];
      }
      const notices = licences();
      const escaped = notices.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
      page.fileName = "app.html";
      page.source = html.replace("<!--licences-->", () => escaped);
      this.emitFile({ type: "asset", fileName: "LICENCES.txt", source: notices });
    },
  };
}

/** Return the licence texts of all libraries in the page, and of onnxruntime-web, which is added when a page is written. */
function licences(): string {
  const texts = bundled().map((name) => {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { version: string; license: string };
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const more = join(here, "licences", `${name.startsWith("onnxruntime") ? "onnxruntime" : name}.txt`);
    const places = [...(file === undefined ? [] : [join(folder, file)]), ...(existsSync(more) ? [more] : [])];
    if (places.length === 0) throw new Error(`${name} has no licence file: add its text to web/licences`);
    return `${name} ${version} (${license})\n\n${places.map((place) => readFileSync(place, "utf8").trim()).join("\n\n")}\n`;
  });
  return `Libraries in pages that run a package in the browser\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

/** Return the names of onnxruntime-web and the libraries that this package depends on, and those that these depend on. */
function bundled(): string[] {
  const read = (folder: string): { dependencies?: Record<string, string> } =>
    existsSync(join(folder, "package.json")) ? JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) : {};
  const found = new Set<string>();
  const add = (folder: string): void => {
    for (const name of Object.keys(read(folder).dependencies ?? {})) {
      if (found.has(name)) continue;
      found.add(name);
      add(join(here, "node_modules", name));
    }
  };
  add(here);
  return ["onnxruntime-web", "onnxruntime-common", ...[...found].filter((name) => !(name in aliases)).sort()];
}

export default defineConfig({
  base: "./",
  resolve: { alias: aliases },
  build: {
    target: "es2022",
    outDir: "../im2im_zoo/web",
    emptyOutDir: true,
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
  worker: { format: "iife", rolldownOptions: { output: { codeSplitting: false } }, plugins: () => [bindWithoutEval()] },
  plugins: [bindWithoutEval(), singleFile()],
  // The tests have the codecs as the page has them.
  test: { server: { deps: { inline: [/numcodecs/, /zarrita/] } } },
});
