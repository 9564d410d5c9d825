/** Filters of a list, kept in the query string. */

import { Box, Button, HStack, Input } from "@chakra-ui/react";
import { useEffect, useState } from "react";
import { useAddress } from "../useAddress";
import { words } from "../words";
import { Select } from "./Select";

const PAUSE_MS = 300;

interface TextFilterProps {
  name: string;
  label: string;
  /** What the API takes; anything else waits until it is that. */
  pattern?: RegExp;
}

/** A text that is looked for once typing rests. */
export function TextFilter({ name, label, pattern }: TextFilterProps) {
  const address = useAddress();
  const there = address.get(name);
  const [typed, setTyped] = useState(there);
  const [seen, setSeen] = useState(there);
  if (seen !== there) {
    setSeen(there);
    setTyped(there);
  }
  const set = address.set;
  const isWhole = !typed || !pattern || pattern.test(typed);
  useEffect(() => {
    if (typed === there || !isWhole) return undefined;
    const timer = setTimeout(() => set({ [name]: typed }), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [typed, there, isWhole, name, set]);
  return (
    <Input
      aria-invalid={!isWhole}
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
    <Select
      choices={{ "": `${label}: ${words().fields.any}`, ...choices }}
      label={label}
      onChange={(value) => address.set({ [name]: value })}
      size="xs"
      value={address.get(name)}
    />
  );
}

/** Take the filters of these names away, if there are some. */
export function Clear({ names }: { names: readonly string[] }) {
  const address = useAddress();
  if (!names.some((name) => address.get(name))) return null;
  return (
    <Button onClick={() => address.set(Object.fromEntries(names.map((name) => [name, null])))} size="xs" variant="plain">
      {words().actions.clear}
    </Button>
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
