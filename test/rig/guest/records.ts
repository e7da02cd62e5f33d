/**
 * The records the guest writes, and the judgement of a set of them. Pure.
 *
 * Record n is one line of fixed length. The guest does these steps for n = 1, 2, 3 …, each durable (fsync) before the next
 * begins:
 *   1. append the line to lane n % LANES, which lies on disk lane % disks
 *   2. rewrite slot n % SLOTS in place, which lies on disk (slot + 1) % disks: with two disks, on the other one
 *   3. for each 16th record: write a new file and rename it over `renamed` on disk 0
 *   4. report n as acknowledged
 * So the disks of one past instant hold the steps up to some point and nothing after it: a prefix. Disks of two instants do not,
 * although each file system by itself is clean.
 */
export const LANES = 4;
export const SLOTS = 32;
export const SLOT_BYTES = 4096;
const RENAMED_EVERY = 16;

/** What was found on the disks. `lanes[l]` and `slots[d]` are empty where the file is missing. */
export interface Found {
  lanes: string[];
  /** One per disk: the whole file; slot s is the line at s * SLOT_BYTES. */
  slots: Buffer[];
  renamed: string | null;
}

export interface Judgement {
  /** The longest run 1..records that the lanes hold. */
  records: number;
  /** Why this is no prefix; empty when it is one. */
  problems: string[];
}

const digits = (n: number): string => String(n).padStart(10, '0');

/** The line of record n, with its end of line. */
export function line(n: number): string {
  const sum = digits((n * 7919 + 12345) % 1000003);
  return `${digits(n)} ${sum} ${'0'.repeat(222)}${sum}\n`;
}

/** Whether what was found is what the guest had on its disks at one instant, and how far it had come. */
export function judge(found: Found): Judgement {
  const problems: string[] = [];
  const counts = found.lanes.map((text, lane) => countLane(text, lane, problems));
  const records = longestRun(counts);
  for (const [lane, count] of counts.entries()) {
    const due = countDue(records, lane);
    if (count > due) problems.push(`lane ${lane} is ahead: record ${numberAt(lane, count)} is there, record ${records + 1} is not`);
  }
  for (const [lane, text] of found.lanes.entries()) {
    const tail = text.slice(counts[lane]! * line(1).length);
    if (tail !== '' && !line(records + 1).startsWith(tail)) problems.push(`lane ${lane} ends in ${tail.length} bytes of no record`);
  }
  judgeSlots(found, records, problems);
  judgeRenamed(found.renamed, records, problems);
  return { records, problems };
}

/** The k-th record of a lane, k = 1, 2 … */
const numberAt = (lane: number, k: number): number => (lane === 0 ? k * LANES : lane + (k - 1) * LANES);
/** How many of the records 1..n belong into the lane. */
const countDue = (n: number, lane: number): number => Math.floor((n - (lane === 0 ? LANES : lane)) / LANES) + 1;

/** How many exact lines, in order, the lane begins with. More complete lines after these are a problem. */
function countLane(text: string, lane: number, problems: string[]): number {
  const width = line(1).length;
  const whole = Math.floor(text.length / width);
  for (let k = 1; k <= whole; k++) {
    if (text.slice((k - 1) * width, k * width) === line(numberAt(lane, k))) continue;
    problems.push(`lane ${lane}: line ${k} is not record ${numberAt(lane, k)}`);
    return k - 1;
  }
  return whole;
}

function longestRun(counts: number[]): number {
  let n = 0;
  while (counts[(n + 1) % LANES]! >= countDue(n + 1, (n + 1) % LANES)) n++;
  return n;
}

/**
 * Each slot holds its newest record; only the slot of the last one may be a round behind, where step 3 has not been done
 * either.
 */
function judgeSlots({ slots, renamed }: Found, records: number, problems: string[]): void {
  for (let slot = 0; slot < SLOTS; slot++) {
    const newest = records - ((((records - slot) % SLOTS) + SLOTS) % SLOTS);
    const cell = slots[(slot + 1) % slots.length]!.subarray(slot * SLOT_BYTES, slot * SLOT_BYTES + line(1).length).toString('latin1');
    const holds = (n: number): boolean => (n > 0 ? cell === line(n) : /^\0*$/.test(cell));
    if (holds(newest) || (newest === records && renamed !== line(records) && holds(newest - SLOTS))) continue;
    problems.push(`slot ${slot} holds ${JSON.stringify(cell.slice(0, 10))}, not record ${Math.max(newest, 0)}`);
  }
}

function judgeRenamed(renamed: string | null, records: number, problems: string[]): void {
  const newest = records - (records % RENAMED_EVERY);
  const holds = (n: number): boolean => (n > 0 ? renamed === line(n) : renamed === null);
  if (holds(newest) || (newest === records && holds(newest - RENAMED_EVERY))) return;
  problems.push(`the renamed file holds ${JSON.stringify(renamed?.slice(0, 10) ?? null)}, not record ${newest}`);
}
