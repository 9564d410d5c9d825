/** Filters of a list, kept in the query string. */

import { Box, HStack, Input, NativeSelect } from "@chakra-ui/react";
import { useEffect, useState } from "react";
import { useAddress } from "../useAddress";
import { words } from "../words";

const PAUSE_MS = 300;

/** A text that is looked for once typing rests. */
export function TextFilter({ name, label }: { name: string; label: string }) {
  const address = useAddress();
  const there = address.get(name);
  const [typed, setTyped] = useState(there);
  const [seen, setSeen] = useState(there);
  if (seen !== there) {
    setSeen(there);
    setTyped(there);
  }
  const set = address.set;
  useEffect(() => {
    if (typed === there) return undefined;
    const timer = setTimeout(() => set({ [name]: typed }), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [typed, there, name, set]);
  return (
    <Input
      aria-label={label}
      maxW="10rem"
      onChange={(event) => setTyped(event.target.value)}
      placeholder={label}
      size="xs"
      value={typed}
    />
  );
}

interface ChoiceProps {
  name: string;
  label: string;
  choices: Readonly<Record<string, string>>;
}

export function Choice({ name, label, choices }: ChoiceProps) {
  const address = useAddress();
  return (
    <NativeSelect.Root maxW="10rem" size="xs">
      <NativeSelect.Field
        aria-label={label}
        onChange={(event) => address.set({ [name]: event.target.value })}
        value={address.get(name)}
      >
        <option value="">{`${label}: ${words().fields.any}`}</option>
        {Object.entries(choices).map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </NativeSelect.Field>
      <NativeSelect.Indicator />
    </NativeSelect.Root>
  );
}

export function Bar({ children }: { children: React.ReactNode }) {
  return (
    <Box mb="3">
      <HStack gap="2" wrap="wrap">
        {children}
      </HStack>
    </Box>
  );
}
