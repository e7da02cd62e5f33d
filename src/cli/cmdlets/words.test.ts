import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readStages, splitShellLine } from './words.ts';

const texts = (...words: string[]): string[][] => readStages(words).map((stage) => stage.map(({ text }) => text));

const lines: readonly [words: string[], stages: string[][]][] = [
  [['A', '“one', 'two', 'three”', 'b'], [['A', 'one two three', 'b']]],
  [['A', '„deutsch', 'so”', '‘single', 'too’'], [['A', 'deutsch so', 'single too']]],
  [['A', '-N:“one', 'two”'], [['A', '-N:one two']]],
  [['A', 'Bob’s', 'VM'], [['A', 'Bob’s', 'VM']]],
  [['A', 'RESYNC VM', 'it"s'], [['A', 'RESYNC VM', 'it"s']]],
  [['A', 'b,', 'c'], [['A', 'b,c']]],
  [
    ['A "x y" | fl *'],
    [
      ['A', 'x y'],
      ['fl', '*'],
    ],
  ],
  [
    ['A', 'x|fl'],
    [['A', 'x'], ['fl']],
  ],
  [['A "x | y" | fl'], [['A', 'x | y'], ['fl']]],
  [['A `"x` y'], [['A', '"x y']]],
  [['A "say ""hi""" \'it\'\'s\''], [['A', 'say "hi"', "it's"]]],
  [['A ""'], [['A', '']]],
];
for (const [words, stages] of lines)
  test(`${JSON.stringify(words)} reads as ${JSON.stringify(stages)}`, () => assert.deepEqual(texts(...words), stages));

test('a quoted comma does not split an array, a quoted dash is no parameter', () => {
  const [word] = readStages(['“a,b”,c'])[0] ?? [];
  assert.deepEqual([word?.parts, word?.quoted], [['a,b', 'c'], true]);
});

test('a shell line is split as people expect', () => {
  assert.deepEqual(splitShellLine('  status "RESYNC VM"   --json '), ['status', 'RESYNC VM', '--json']);
  assert.deepEqual(splitShellLine(''), []);
  assert.throws(() => splitShellLine('status "web'), { code: 'QUOTE_OPEN' });
});

test('whatever is quoted comes back whole', () => {
  const name = fc.string({ minLength: 1, maxLength: 12 }).filter((text) => !/[\0]/.test(text));
  fc.assert(
    fc.property(fc.array(name, { minLength: 1, maxLength: 4 }), (names) => {
      const line = names.map((text) => `"${text.replace(/["“”„‟]/g, (quote) => quote + quote)}"`).join(' ');
      assert.deepEqual(splitShellLine(line), names);
    }),
    { seed: 11, numRuns: 500 },
  );
});
