// Only rules that have caught real defects in programs of this kind: lost promises, and a `return` of a promise inside
// `try`, whose `catch` then never runs. Layout is not linted; sizes and imports are tests (test/house).
import tseslint from 'typescript-eslint';

const rules = {
  '@typescript-eslint/no-floating-promises': 'error',
  '@typescript-eslint/no-misused-promises': 'error',
  '@typescript-eslint/return-await': ['error', 'error-handling-correctness-only'],
  '@typescript-eslint/await-thenable': 'error',
  '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
  'no-empty': 'error',
  eqeqeq: 'error',
};
const checked = (files, project) => ({
  files,
  languageOptions: { parser: tseslint.parser, parserOptions: { project, tsconfigRootDir: import.meta.dirname } },
  plugins: { '@typescript-eslint': tseslint.plugin },
  rules,
});

export default tseslint.config(
  { ignores: ['node_modules/**', 'web/dist/**', 'web/.dist-*/**', 'web/vite.config.ts', '.state/**'] },
  checked(['{src,test,bench,scripts}/**/*.ts'], './tsconfig.json'),
  checked(['web/src/**/*.{ts,tsx}'], './web/tsconfig.json'),
  // node:test's `test()` returns a promise that the runner itself awaits.
  { files: ['**/*.test.ts', '**/*.suite.ts'], rules: { '@typescript-eslint/no-floating-promises': ['error', { allowForKnownSafeCalls: [{ from: 'package', name: ['test', 'describe', 'it', 'before', 'after', 'beforeEach', 'afterEach', 'suite'], package: 'node:test' }] }] } },
);
