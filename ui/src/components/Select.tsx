/** A choice from a few values. */

import { NativeSelect } from "@chakra-ui/react";

interface SelectProps {
  label: string;
  value: string;
  /** The label of each value. */
  choices: Readonly<Record<string, string>>;
  onChange: (value: string) => void;
  size?: "xs" | "sm";
}

export function Select({ label, value, choices, onChange, size = "sm" }: SelectProps) {
  return (
    <NativeSelect.Root size={size} w="auto">
      <NativeSelect.Field aria-label={label} onChange={(event) => onChange(event.target.value)} value={value}>
        {Object.entries(choices).map(([one, text]) => (
          <option key={one} value={one}>
            {text}
          </option>
        ))}
      </NativeSelect.Field>
      <NativeSelect.Indicator />
    </NativeSelect.Root>
  );
}
