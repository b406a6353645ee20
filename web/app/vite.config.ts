import { defineConfig } from "vite";

export default defineConfig({
  base: "/alknet/app/",
  build: {
    target: "es2023",
    // Files only: the node's content security policy allows no data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
