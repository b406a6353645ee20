import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

export default defineConfig({
  base: "/alknet/app/",
  resolve: {
    // From its sources, so that nothing has to be built before.
    alias: {
      "@alknet/client": fileURLToPath(new URL("../client/src/index.ts", import.meta.url)),
    },
  },
  // They load what they need, as the page does.
  worker: { format: "es" },
  build: {
    target: "es2023",
    // Files only: the node's content security policy allows no data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
