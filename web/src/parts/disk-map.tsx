/** A disk as a row of cells: what is proven equal, what differs, what was mended, what is a hole, what nobody has read yet. */
import { memo, useId, useState, type KeyboardEvent } from 'react';
import type { ResyncStatus } from '../../../src/server/api/contract.ts';
import { bytes } from '../data/format.ts';

const CELLS: [letter: string, name: string, label: string][] = [
  ['e', 'equal', 'Equal'],
  ['m', 'mended', 'Mended'],
  ['d', 'differing', 'Differs, being sent'],
  ['h', 'hole', 'Hole (zeroes on both sides)'],
  ['.', 'unread', 'Not read yet'],
  ['-', 'outside', 'Known equal, not compared'],
];
const NAME = new Map(CELLS.map(([letter, name]) => [letter, name]));
const LABEL = new Map(CELLS.map(([letter, , label]) => [letter, label]));

type Disk = ResyncStatus['disks'][number];

export const DiskMap = memo(
  function DiskMap({ disk }: { disk: Disk }) {
    const map = typeof disk.map === 'string' ? disk.map : '';
    const counts = CELLS.map(([letter, , label]) => [label, [...map].filter((cell) => cell === letter).length] as const).filter(
      ([, n]) => n > 0,
    );
    return (
      <figure className="disk">
        <figcaption>
          <span>{disk.path}</span>
          <small>
            {bytes(disk.comparedBytes)} of {bytes(disk.totalBytes)} compared, {bytes(disk.differingBytes)} differ, {bytes(disk.sentBytes)}{' '}
            sent
          </small>
        </figcaption>
        {map === '' ? null : (
          <Cells
            map={map}
            totalBytes={disk.totalBytes}
            label={`Map of ${disk.path}: ${counts.map(([label, n]) => `${label} ${Math.round((n / map.length) * 100)} %`).join(', ')}`}
          />
        )}
      </figure>
    );
  },
  (before, after) => JSON.stringify(before.disk) === JSON.stringify(after.disk),
);

/** How far a key moves, with `row` cells in a row on the screen. */
const STEPS: Record<string, (row: number) => number> = {
  ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: (row) => row, ArrowUp: (row) => -row, PageDown: (row) => 4 * row, PageUp: (row) => -4 * row,
  End: () => Infinity, Home: () => -Infinity,
};

/** Cells until the second row begins; how many fit depends on the window. */
function rowLength({ children }: Element): number {
  const [first] = children as HTMLCollectionOf<HTMLElement>;
  const second = [...(children as HTMLCollectionOf<HTMLElement>)].findIndex((cell) => cell.offsetTop > (first?.offsetTop ?? 0));
  return second < 0 ? children.length : second;
}

/** One stop of the Tab key; arrow keys and clicks choose a cell, and what it says stands below. */
function Cells({ map, totalBytes, label }: { map: string; totalBytes: number; label: string }) {
  const id = useId();
  const [chosen, setChosen] = useState<number | null>(null);
  const at = chosen === null ? null : Math.min(chosen, map.length - 1);
  const cellBytes = Math.ceil(totalBytes / map.length);
  const says = (index: number) =>
    `${bytes(index * cellBytes)} to ${bytes(Math.min(totalBytes, (index + 1) * cellBytes))}: ${LABEL.get(map[index]!) ?? 'Not read yet'}`;
  const press = (event: KeyboardEvent) => {
    const step = STEPS[event.key]?.(rowLength(event.currentTarget));
    if (step === undefined) return;
    event.preventDefault();
    setChosen(Math.max(0, Math.min(map.length - 1, (at ?? 0) + step)));
  };
  return (
    <>
      <div
        className="cells"
        role="listbox"
        tabIndex={0}
        aria-label={label}
        aria-activedescendant={at === null ? undefined : `${id}${at}`}
        onKeyDown={press}
        onFocus={() => setChosen((before) => before ?? 0)}
      >
        {[...map].map((letter, index) => (
          <i
            key={index}
            id={`${id}${index}`}
            role="option"
            aria-selected={index === at}
            title={says(index)}
            className={NAME.get(letter) ?? 'unread'}
            onClick={() => setChosen(index)}
          />
        ))}
      </div>
      {at === null ? null : (
        <p className="hint cell-says">
          Part {at + 1} of {map.length}, {says(at)}
        </p>
      )}
    </>
  );
}

export function DiskMapLegend() {
  return (
    <ul className="legend" aria-label="What the map shows">
      {CELLS.map(([, name, label]) => (
        <li key={name}>
          <i className={name} />
          {label}
        </li>
      ))}
    </ul>
  );
}
