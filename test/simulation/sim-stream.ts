/** Raw bytes both ways between two simulated hosts. A dead process hears nothing more; the living end sees a reset. */
import { Duplex } from 'node:stream';
import type { Life, Scheduler } from './scheduler.ts';
import type { SimNetwork } from './sim-link.ts';

interface End {
  life: Life;
  duplex: Duplex;
}

/** A pair of connected streams; each end belongs to a life. */
export function simStream(scheduler: Scheduler, network: SimNetwork, near: Life, far: Life): [Duplex, Duplex] {
  const ends: End[] = [];
  const make = (life: Life, other: () => End): Duplex => {
    // One after another and in order, each after its own delay.
    let clear = 0;
    const carry = (deliver: () => void, done: () => void) => {
      const at = Math.max(clear, scheduler.now + scheduler.dice.next() * network.delayMs);
      clear = at;
      scheduler.after(at - scheduler.now, life, done);
      scheduler.after(at - scheduler.now, null, () => {
        if (network.cut || !life.alive || !other().life.alive) reset(ends);
        else deliver();
      });
    };
    return new Duplex({
      allowHalfOpen: true,
      read() {},
      write(chunk: Buffer, _encoding, done) {
        carry(() => other().duplex.push(Buffer.from(chunk)), done);
      },
      final(done) {
        carry(() => other().duplex.push(null), done);
      },
      destroy(error, done) {
        done(error);
        scheduler.after(1, null, () => reset(ends));
      },
    });
  };
  ends.push({ life: near, duplex: make(near, () => ends[1]!) });
  ends.push({ life: far, duplex: make(far, () => ends[0]!) });
  for (const { duplex } of ends) duplex.on('error', () => undefined);
  // Crashes and cuts are noticed also when nothing is on its way.
  const watch = () => {
    if (ends.every(({ duplex }) => duplex.destroyed || (duplex.readableEnded && duplex.writableFinished))) return;
    if (network.cut || ends.some(({ life }) => !life.alive)) reset(ends);
    else scheduler.after(50, null, watch);
  };
  scheduler.after(50, null, watch);
  return [ends[0]!.duplex, ends[1]!.duplex];
}

function reset(ends: End[]): void {
  for (const { life, duplex } of ends) {
    const ended = duplex.readableEnded && duplex.writableFinished;
    if (life.alive && !duplex.destroyed && !ended) duplex.destroy(Object.assign(new Error('reset'), { code: 'ECONNRESET' }));
  }
}
