import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vitest/config";

/** The libraries that Airflow's page shares with plugins, and the globals that hold them (Airflow 3.2 and later). */
const SHARED = {
  react: "React",
  "react-dom": "ReactDOM",
  "react/jsx-runtime": "ReactJSXRuntime",
  "react-router-dom": "ReactRouterDOM",
  "@chakra-ui/react": "ChakraUI",
  "@emotion/react": "EmotionReact",
};

const MAX_BYTES = 60 * 1024;

/** Fails the build if the compressed file is larger than MAX_BYTES: every page of Airflow loads it. */
function limitBundleSize(): Plugin {
  return {
    name: "limit-bundle-size",
    generateBundle(_options, bundle) {
      for (const file of Object.values(bundle)) {
        if (file.type !== "chunk") continue;
        const compressed = gzipSync(file.code).length;
        if (compressed > MAX_BYTES) this.error(`${file.fileName} has ${compressed} bytes compressed, more than ${MAX_BYTES}`);
        console.log(`${file.fileName}: ${file.code.length} bytes, ${compressed} compressed`);
      }
    },
  };
}

export default defineConfig(({ command }) => ({
  define: command === "build" ? { "process.env.NODE_ENV": '"production"' } : {},
  plugins: [limitBundleSize()],
  build: {
    outDir: "../provider/src/airflow_remote_provider/static",
    emptyOutDir: true,
    lib: { entry: "src/main.tsx", formats: ["iife"], name: "AirflowRemoteUi", fileName: () => "remote-workers.js" },
    rolldownOptions: { external: Object.keys(SHARED), output: { globals: SHARED } },
  },
  test: {
    environment: "jsdom",
    include: ["tests/**/*.test.{ts,tsx}"],
    globals: false,
    // Loading Chakra again for each file takes six times as long as all tests together.
    isolate: false,
    restoreMocks: true,
    // Only a test that hangs takes so long, even on a busy machine.
    testTimeout: 60_000,
  },
}));
