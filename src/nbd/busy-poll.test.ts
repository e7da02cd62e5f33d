import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BusyPoll } from './busy-poll.ts';

/** Half a millisecond is what it polls for; `turn` is one turn of the event loop, false when nothing asked for one. */
function rig() {
  let now = 10_000;
  const due: (() => void)[] = [];
  const poll = new BusyPoll({ monotonic: () => now }, 0.5, (look) => due.push(look));
  const turn = (): boolean => {
    const look = due.shift();
    look?.();
    return look !== undefined;
  };
  return { poll, pass: (ms: number) => (now += ms), turn, waiting: () => due.length };
}

describe('polling behind an answer', () => {
  test('the first answer, and one after a pause, are followed by none', () => {
    const { poll, pass, waiting } = rig();
    poll.answered();
    pass(0.5);
    poll.answered();
    assert.equal(waiting(), 0);
  });

  test('a quick one is, until nothing has come for as long', () => {
    const { poll, pass, turn } = rig();
    poll.answered();
    pass(0.4);
    poll.answered();
    for (let i = 0; i < 4; i++) {
      pass(0.1);
      assert.ok(turn());
    }
    pass(0.1);
    assert.ok(turn(), 'the last look');
    assert.ok(!turn());
  });

  test('each further answer prolongs it, and is not a second poll', () => {
    const { poll, pass, turn, waiting } = rig();
    poll.answered();
    for (let i = 0; i < 10; i++) {
      pass(0.3);
      poll.answered();
      assert.equal(waiting(), 1);
      turn();
    }
    pass(0.5);
    turn();
    assert.equal(waiting(), 0);
  });

  test('no time for it: never', () => {
    const poll = new BusyPoll({ monotonic: () => 1 }, 0, () => assert.fail('polls'));
    poll.answered();
    poll.answered();
  });
});
