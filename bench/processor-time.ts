/** Processor time of programs, user and system: what a bench can compare while other work keeps the machine busy. */
import { readFileSync } from 'node:fs';

const fieldsOf = (pid: number | 'self'): number[] => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ').map(Number);

/** Seconds that the process has used, with all its threads. */
export function processorSeconds(pid: number): number {
  const fields = fieldsOf(pid);
  return (fields[11]! + fields[12]!) / 100;
}

/** Seconds of all programs that this one has started and seen end. */
export function endedProgramsSeconds(): number {
  const fields = fieldsOf('self');
  return (fields[13]! + fields[14]!) / 100;
}
