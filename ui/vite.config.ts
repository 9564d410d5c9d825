import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vitest/config";

/** What Airflow's own page shares with its plugins, by the global that holds it (Airflow 3.2 and later). */
const SHARED = {
  react: "React",
  "react-dom": "ReactDOM",
  "react/jsx-runtime": "ReactJSXRuntime",
  "react-router-dom": "ReactRouterDOM",
  "@chakra-ui/react": "ChakraUI",
  "@emotion/react": "EmotionReact",
};

const MOST_BYTES = 60 * 1024;

/** Fails the build if the one file is larger, packed, than a page's own script should be. */
function bounded(): Plugin {
  return {
    name: "bounded",
    generateBundle(_options, bundle) {
      for (const file of Object.values(bundle)) {
        if (file.type !== "chunk") continue;
        const packed = gzipSync(file.code).length;
        if (packed > MOST_BYTES) this.error(`${file.fileName} has ${packed} bytes packed, more than ${MOST_BYTES}`);
        console.log(`${file.fileName}: ${file.code.length} bytes, ${packed} packed`);
      }
    },
  };
}

export default defineConfig(({ command }) => ({
  define: command === "build" ? { "process.env.NODE_ENV": '"production"' } : {},
  plugins: [bounded()],
  build: {
    outDir: "../provider/src/airflow_remote_provider/static",
    emptyOutDir: true,
    lib: { entry: "src/main.tsx", formats: ["iife"], name: "AirflowRemoteUi", fileName: () => "remote-workers.js" },
    rolldownOptions: { external: Object.keys(SHARED), output: { globals: SHARED } },
  },
  test: { environment: "jsdom", include: ["tests/**/*.test.{ts,tsx}"], globals: false },
}));
