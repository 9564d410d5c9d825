import hooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

export default tseslint.config(
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    plugins: { "react-hooks": hooks },
    rules: {
      ...hooks.configs.recommended.rules,
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": "off",
      // All texts are in words.ts.
      "no-restricted-syntax": ["error", { selector: "JSXText[value=/[A-Za-z]{2}/]", message: "put the text into words.ts" }],
    },
  },
  { ignores: ["eslint.config.js", "node_modules"] },
);
