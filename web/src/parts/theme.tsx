/** Light, dark, or as the system has it. */
import { useState } from 'react';

const KEY = 'understudy-theme';
const NEXT = { system: 'light', light: 'dark', dark: 'system' } as const;
type Theme = keyof typeof NEXT;
const WORDS: Record<Theme, string> = { system: 'Theme: system', light: 'Theme: light', dark: 'Theme: dark' };

function stored(): Theme {
  const value = localStorage.getItem(KEY);
  return value === 'light' || value === 'dark' ? value : 'system';
}

function apply(theme: Theme): void {
  document.documentElement.dataset.theme = theme;
}

apply(stored());

export function ThemeButton() {
  const [theme, setTheme] = useState(stored);
  const change = () => {
    const next = NEXT[theme];
    localStorage.setItem(KEY, next);
    apply(next);
    setTheme(next);
  };
  return (
    <button type="button" className="quiet theme" onClick={change} title="Change the theme">
      {WORDS[theme]}
    </button>
  );
}
