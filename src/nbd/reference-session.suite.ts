/**
 * For tests: what a session of the NBD protocol must do to a disk of zeroes, written once more, slowly and without a
 * look at the server. It takes all bytes a client sends before it hangs up.
 */
export interface SessionOutcome {
  disk: Buffer;
  /** Bytes of the answer to EXPORT_NAME; 0 when the client came by GO, null when it never reached transmission. */
  attached: number | null;
  structured: boolean;
  /** One per reply that must come, in any order. `bytes` are the data of a READ. */
  answers: { cookie: bigint; isError: boolean; bytes: number }[];
  /** The client ended it by ABORT, by DISC or between two messages. */
  isClean: boolean;
}

const MIB = 2 ** 20;
const OPTION_MAGIC = 0x49484156454f5054n;

/** `disk` holds zeroes, and afterwards what the session wrote. */
export function referenceSession(sent: Buffer, exportName: string, disk: Buffer): SessionOutcome {
  const outcome: SessionOutcome = { disk, attached: null, structured: false, answers: [], isClean: false };
  if (sent.length < 4) return outcome;
  const flags = sent.readUInt32BE(0);
  if (flags > 3) return outcome;
  const state = { blockStatus: false };
  let at = 4;
  for (let options = 1; outcome.attached === null; options += 1) {
    if (sent.length - at < 16 || sent.readBigUInt64BE(at) !== OPTION_MAGIC) return outcome;
    const [option, length] = [sent.readUInt32BE(at + 8), sent.readUInt32BE(at + 12)];
    const data = sent.subarray(at + 16, at + 16 + length);
    if (length > 65_536 || data.length < length || options > 64) return outcome;
    at += 16 + length;
    if (option === 1) {
      if (data.toString() !== exportName) return outcome;
      outcome.attached = (flags & 2) === 0 ? 134 : 10;
      state.blockStatus &&= outcome.structured;
    } else if ((flags & 1) === 0) {
      return outcome;
    } else if (option === 2) {
      return { ...outcome, isClean: true };
    } else if (option === 8 && length === 0) {
      outcome.structured = true;
    } else if (option === 10 && outcome.structured) {
      const selected = selection(data, exportName);
      if (selected !== null) state.blockStatus = selected;
    } else if (option === 7 && isInfoRequestFor(data, exportName)) {
      outcome.attached = 0;
    }
  }
  requests(sent.subarray(at), outcome, state.blockStatus);
  return outcome;
}

function isInfoRequestFor(data: Buffer, exportName: string): boolean {
  const end = 4 + exportName.length;
  return data.length >= end + 2 && data.readUInt32BE(0) === exportName.length && data.toString('latin1', 4, end) === exportName
    && data.length === end + 2 + 2 * data.readUInt16BE(end);
}

/** Whether base:allocation is selected afterwards; null when the option is malformed and changes nothing. */
function selection(data: Buffer, exportName: string): boolean | null {
  const texts: string[] = [];
  let at = 0;
  const text = () => {
    if (data.length - at < 4) return false;
    const length = data.readUInt32BE(at);
    if (length > 4096 || data.length - at - 4 < length) return false;
    texts.push(data.toString('latin1', at + 4, at + 4 + length));
    at += 4 + length;
    return true;
  };
  if (!text() || data.length - at < 4) return null;
  const count = data.readUInt32BE(at);
  at += 4;
  for (let i = 0; i < count; i += 1) if (!text()) return null;
  if (at !== data.length) return null;
  return texts[0] === exportName && texts.slice(1).includes('base:allocation');
}

const COMMAND_FLAGS: Record<number, number> = { 0: 1 | 4, 1: 1, 3: 1, 4: 1, 5: 1, 6: 1 | 2, 7: 1 | 8 };

function requests(sent: Buffer, outcome: SessionOutcome, blockStatus: boolean): void {
  const { disk, answers, structured } = outcome;
  for (let at = 0;;) {
    if (at === sent.length) outcome.isClean = true;
    if (sent.length - at < 28 || sent.readUInt32BE(at) !== 0x25609513) return;
    const [flags, command, cookie] = [sent.readUInt16BE(at + 4), sent.readUInt16BE(at + 6), sent.readBigUInt64BE(at + 8)];
    const [offset, length] = [Number(sent.readBigUInt64BE(at + 16)), sent.readUInt32BE(at + 24)];
    at += 28;
    if (command === 2) {
      outcome.isClean = true;
      return;
    }
    const isLegal = (flags & ~(COMMAND_FLAGS[command] ?? 0)) === 0 && COMMAND_FLAGS[command] !== undefined
      && (structured || (flags & 4) === 0) && (command !== 7 || blockStatus);
    const isInside = length > 0 && offset + length <= disk.length;
    const isValid = isLegal && (command === 3 ? offset === 0 && length === 0 : isInside);
    if (command === 1) {
      if (length > 64 * MIB) {
        answers.push({ cookie, isError: true, bytes: 0 });
        return;
      }
      if (sent.length - at < length) return;
      if (isValid) sent.copy(disk, offset, at, at + length);
      at += length;
    }
    if (isValid && (command === 4 || command === 6)) disk.fill(0, offset, offset + length);
    answers.push({ cookie, isError: !isValid, bytes: isValid && command === 0 ? length : 0 });
  }
}
